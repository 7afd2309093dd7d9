#include "recsys_train/layers.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/threshold_backward.h>
#include <ATen/ops/zeros.h>

#include <cmath>

namespace tessera::recsys_train {
namespace {

constexpr int64_t kRowsPerTask = 128, kRowsCompared = 64;

Tensor sines(at::IntArrayRef shape) {
  return at::arange(c10::multiply_integers(shape), at::kFloat).sin().view(shape);
}

}  // namespace

Linear::Linear(Parameters& parameters, const std::string& name, int64_t inputs, int64_t outputs, bool relu,
               bool bias)
    : parameters_(parameters), relu_(relu), has_bias_(bias) {
  const float bound = 1 / std::sqrt(static_cast<float>(inputs));  // torch.nn.Linear's
  weight_ = parameters.add(name + ".weight", {outputs, inputs}, bound);
  if (bias) bias_ = parameters.add(name + ".bias", {outputs}, bound);
}

Tensor Linear::forward(const Tensor& x_BI) {
  input_ = x_BI;
  Tensor weight = parameters_.value(weight_).t();
  Tensor out = has_bias_ ? at::addmm(parameters_.value(bias_), x_BI, weight) : at::mm(x_BI, weight);
  output_ = relu_ ? at::relu(out) : out;
  return output_;
}

Tensor Linear::backward(const Tensor& gradient_BO, bool wants_input) {
  Tensor gradient = relu_ ? at::threshold_backward(gradient_BO, output_, 0) : gradient_BO;
  Tensor into = parameters_.gradient(weight_);
  at::mm_out(into, gradient.t(), input_);
  if (has_bias_) {
    Tensor bias = parameters_.gradient(bias_);
    at::sum_out(bias, gradient, {0});
  }
  return wants_input ? at::mm(gradient, parameters_.value(weight_)) : Tensor();
}

Mlp::Mlp(Parameters& parameters, const std::string& name, int64_t inputs, const std::vector<int64_t>& sizes,
         bool last_relu) {
  for (size_t i = 0; i < sizes.size(); ++i) {
    layers_.emplace_back(parameters, name + "." + std::to_string(2 * i), inputs, sizes[i],
                         last_relu || i + 1 < sizes.size());
    inputs = sizes[i];
  }
}

Tensor Mlp::forward(Tensor x) {
  for (Linear& layer : layers_) x = layer.forward(x);
  return x;
}

Tensor Mlp::backward(Tensor gradient, bool wants_input) {
  for (auto layer = layers_.rbegin(); layer != layers_.rend(); ++layer)
    gradient = layer->backward(gradient, wants_input || layer + 1 != layers_.rend());
  return gradient;
}

DotInteraction::DotInteraction(int64_t vectors, int64_t dim)
    : vectors_(vectors), dim_(dim), kernels_(dot_kernels(vectors, dim)) {
  pairs_ = at::empty({pairs_of(vectors)}, at::kLong);
  int64_t* pair = pairs_.data_ptr<int64_t>();
  for (int64_t i = 1; i < vectors; ++i)
    for (int64_t j = 0; j < i; ++j) *pair++ = i * vectors + j;
  if (kernels_ == nullptr) return;
  // MKL adds the products of small matrices in another order, by size and processor.
  Tensor x = sines({kRowsCompared, dim}), others = sines({kRowsCompared, vectors - 1, dim});
  Tensor gradient = sines({kRowsCompared, outputs()});
  const Tensor out = forward(x, others), expected = forward_by_matrices(x, others);
  const Gradients to = backward(gradient), wanted = backward_by_matrices(gradient);
  if (!out.equal(expected) || !to.x.equal(wanted.x) || !to.others.equal(wanted.others)) kernels_ = nullptr;
}

// The rows from `first` on.
DotRows DotInteraction::rows_from(int64_t first) const {
  return {.rows = 0,
          .others = vectors_ - 1,
          .dim = dim_,
          .first = x_.const_data_ptr<float>() + first * dim_,
          .vectors = others_.const_data_ptr<float>() + first * (vectors_ - 1) * dim_,
          .first_stride = dim_};
}

Tensor DotInteraction::forward(const Tensor& x_BD, const Tensor& others_BSD) {
  if (kernels_ == nullptr) return forward_by_matrices(x_BD, others_BSD);
  x_ = x_BD.contiguous();
  others_ = others_BSD.contiguous();
  Tensor out = at::empty({x_.size(0), outputs()}, at::kFloat);
  out.narrow(1, 0, dim_).copy_(x_);
  float* to = out.data_ptr<float>() + dim_;
  at::parallel_for(0, x_.size(0), kRowsPerTask, [&](int64_t first, int64_t last) {
    DotRows rows = rows_from(first);
    rows.rows = last - first;
    kernels_->forward(rows, to + first * outputs(), outputs());
  });
  return out;
}

DotInteraction::Gradients DotInteraction::backward(const Tensor& gradient) {
  if (kernels_ == nullptr) return backward_by_matrices(gradient);
  Tensor from = gradient.contiguous();
  Gradients out{.x = at::empty_like(x_), .others = at::empty_like(others_)};
  const float* pairs = from.const_data_ptr<float>() + dim_;
  float *to_x = out.x.data_ptr<float>(), *to_others = out.others.data_ptr<float>();
  at::parallel_for(0, x_.size(0), kRowsPerTask, [&](int64_t first, int64_t last) {
    DotRows rows = rows_from(first);
    rows.rows = last - first;
    kernels_->backward(rows, pairs + first * outputs(), outputs(), to_x + first * dim_,
                       to_others + first * (vectors_ - 1) * dim_);
  });
  out.x = from.narrow(1, 0, dim_) + out.x;
  return out;
}

Tensor DotInteraction::forward_by_matrices(const Tensor& x_BD, const Tensor& others_BSD) {
  input_ = at::cat({x_BD.unsqueeze(1), others_BSD}, 1);
  Tensor square = at::bmm(input_, input_.transpose(1, 2)).view({x_BD.size(0), vectors_ * vectors_});
  return at::cat({x_BD, square.index_select(1, pairs_)}, 1);
}

DotInteraction::Gradients DotInteraction::backward_by_matrices(const Tensor& gradient) {
  Tensor square = at::zeros({input_.size(0), vectors_ * vectors_}, at::kFloat);
  square.index_add_(1, pairs_, gradient.narrow(1, dim_, pairs_of(vectors_)));
  square = square.view({input_.size(0), vectors_, vectors_});
  Tensor left = at::bmm(square, input_);
  Tensor vectors = left + at::bmm(input_.transpose(1, 2), square).transpose(1, 2);
  return {.x = gradient.narrow(1, 0, dim_) + vectors.select(1, 0),
          .others = vectors.narrow(1, 1, vectors_ - 1)};
}

CrossNetwork::CrossNetwork(Parameters& parameters, const std::string& name, int64_t width, int64_t layers,
                           int64_t rank) {
  for (int64_t i = 0; i < layers; ++i) {
    std::string prefix = name + "." + std::to_string(i);
    Layer layer;
    if (rank > 0) layer.down = std::make_unique<Linear>(parameters, prefix + ".v", width, rank, false, false);
    layer.up = std::make_unique<Linear>(parameters, prefix + (rank > 0 ? ".u" : ".w"), rank > 0 ? rank : width,
                                        width, false);
    layers_.push_back(std::move(layer));
  }
}

Tensor CrossNetwork::forward(const Tensor& x0) {
  x0_ = x0;
  Tensor x = x0;
  for (Layer& layer : layers_) {
    layer.product = layer.up->forward(layer.down ? layer.down->forward(x) : x);
    x = x0 * layer.product + x;
  }
  return x;
}

// x_0 is an operand of every layer and the input of the first; its gradients are added in the order in which
// autograd meets them.
Tensor CrossNetwork::backward(const Tensor& gradient) {
  Tensor through = gradient, to_x0;
  for (size_t i = layers_.size(); i-- > 0;) {
    Layer& layer = layers_[i];
    Tensor direct = through * layer.product;
    Tensor below = layer.up->backward(through * x0_);
    if (layer.down) below = layer.down->backward(below);
    if (i > 0) {
      to_x0 = to_x0.defined() ? to_x0 + direct : direct;
      through = through + below;
    } else {
      to_x0 = (to_x0.defined() ? to_x0 + through : through) + direct + below;
    }
  }
  return to_x0;
}

Tensor FactorisationMachine::forward(const Tensor& v_BFD) {
  input_ = v_BFD;
  sum_ = v_BFD.sum(1);
  Tensor squares = (v_BFD * v_BFD).sum(1);
  return ((sum_ * sum_ - squares) * 0.5).sum(1, true);
}

Tensor FactorisationMachine::backward(const Tensor& gradient) {
  return (sum_.unsqueeze(1) - input_) * gradient.unsqueeze(2);
}

}  // namespace tessera::recsys_train
