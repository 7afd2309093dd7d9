// The optimizers of dense weights, in the operators and the order of torch.optim (single-tensor form), so that
// equal gradients give equal bits.
#pragma once

#include <memory>
#include <string>

#include "core/result.h"
#include "recsys_train/parameters.h"

namespace tessera::recsys_train {

struct DenseOptimizerOptions {
  std::string kind = "sgd";  // sgd, adagrad, adam
  double learning_rate = 0.1;
  double momentum = 0;                // sgd
  double beta1 = 0.9, beta2 = 0.999;  // adam
  double epsilon = 1e-8;              // adam; adagrad takes 1e-10 as torch does
  double weight_decay = 0;            // L2, as in torch.optim
};

class DenseOptimizer {
 public:
  static Result<std::unique_ptr<DenseOptimizer>> create(const DenseOptimizerOptions& options,
                                                        Parameters& parameters);
  virtual ~DenseOptimizer() = default;
  virtual void step() = 0;
  // What a checkpoint has to keep beside the weights: tensors in a fixed order, and the steps taken.
  virtual std::vector<at::Tensor> state() = 0;
  int64_t steps = 0;
};

}  // namespace tessera::recsys_train
