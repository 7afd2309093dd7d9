// The weights of a dense network in one flat tensor and their gradients in another, so that an all-reduce is
// one call. A weight is a view with a name; matrices are [out, in] as in torch.nn.Linear.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace tessera::recsys_train {

struct Parameter {
  std::string name;
  at::Tensor value, gradient;  // views of the flat tensors
};

class Parameters {
 public:
  // Declares a weight, drawn uniformly from (-bound, bound). Returns its number.
  size_t add(std::string name, std::vector<int64_t> shape, float bound);
  // Makes the flat tensors after the last add(); values are a function of (seed, name).
  void allocate(uint64_t seed);

  const at::Tensor& value(size_t number) const { return all_[number].value; }
  const at::Tensor& gradient(size_t number) const { return all_[number].gradient; }
  const std::vector<Parameter>& all() const { return all_; }
  at::Tensor flat_values() const { return values_; }
  at::Tensor flat_gradients() const { return gradients_; }

 private:
  struct Declared {
    std::vector<int64_t> shape;
    float bound;
  };
  std::vector<Declared> declared_;
  std::vector<Parameter> all_;
  at::Tensor values_, gradients_;
};

}  // namespace tessera::recsys_train
