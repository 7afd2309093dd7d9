// The layers of click models, each with its own backward, in the operators and the order that PyTorch's
// autograd uses for the module named, so that equal inputs give equal bits.
//
// Shapes: B rows, I inputs, O outputs, F vectors of a row, D their dimension. A backward() belongs to the last
// forward(), sets the gradients of the layer's weights and returns that of its input. Threads: one.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "recsys_train/dot_kernels.h"
#include "recsys_train/parameters.h"

namespace tessera::recsys_train {

using at::Tensor;

// torch.nn.Linear, with a ReLU behind it when wanted.
class Linear {
 public:
  Linear(Parameters& parameters, const std::string& name, int64_t inputs, int64_t outputs, bool relu,
         bool bias = true);
  Tensor forward(const Tensor& x_BI);
  // The gradient of the input is undefined where nobody wants it.
  Tensor backward(const Tensor& gradient_BO, bool wants_input = true);

 private:
  Parameters& parameters_;
  size_t weight_, bias_ = 0;
  bool relu_, has_bias_;
  Tensor input_, output_;
};

// torch.nn.Sequential of Linear and ReLU; the last layer has a ReLU when `last_relu`.
class Mlp {
 public:
  Mlp(Parameters& parameters, const std::string& name, int64_t inputs, const std::vector<int64_t>& sizes,
      bool last_relu);
  Tensor forward(Tensor x);
  Tensor backward(Tensor gradient, bool wants_input = true);

 private:
  std::vector<Linear> layers_;
};

// DLRM (Naumov et al., 2019): a vector x, and the dot products of all pairs of x and others, F vectors in all;
// pairs (i, j < i) by rows.
class DotInteraction {
 public:
  DotInteraction(int64_t vectors, int64_t dim);
  Tensor forward(const Tensor& x_BD, const Tensor& others_BSD);  // -> [B, D + F (F - 1) / 2]
  struct Gradients {
    Tensor x, others;
  };
  Gradients backward(const Tensor& gradient);
  int64_t outputs() const { return dim_ + pairs_of(vectors_); }

 private:
  static int64_t pairs_of(int64_t vectors) { return vectors * (vectors - 1) / 2; }
  Tensor forward_by_matrices(const Tensor& x_BD, const Tensor& others_BSD);
  Gradients backward_by_matrices(const Tensor& gradient);
  DotRows rows_from(int64_t first) const;

  int64_t vectors_, dim_;
  const DotKernels* kernels_;  // null: by products of matrices
  Tensor pairs_, input_, x_, others_;
};

// DCNv2 (Wang et al., 2021): x_{l+1} = x_0 * (W_l x_l + b_l) + x_l; with rank > 0, W_l = U_l V_l.
class CrossNetwork {
 public:
  CrossNetwork(Parameters& parameters, const std::string& name, int64_t width, int64_t layers, int64_t rank);
  Tensor forward(const Tensor& x0);
  Tensor backward(const Tensor& gradient);

 private:
  struct Layer {
    std::unique_ptr<Linear> down, up;  // down only with a rank
    Tensor product;
  };
  std::vector<Layer> layers_;
  Tensor x0_;
};

// DeepFM's second order (Guo et al., 2017): sum over D of ((sum_f v)^2 - sum_f v^2) / 2.
class FactorisationMachine {
 public:
  Tensor forward(const Tensor& v_BFD);      // -> [B, 1]
  Tensor backward(const Tensor& gradient);  // -> [B, F, D]

 private:
  Tensor input_, sum_;
};

}  // namespace tessera::recsys_train
