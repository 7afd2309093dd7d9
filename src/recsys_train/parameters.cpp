#include "recsys_train/parameters.h"

#include <ATen/ops/zeros.h>

#include <numeric>

#include "recsys_data/csv.h"
#include "recsys_data/random.h"

namespace tessera::recsys_train {

size_t Parameters::add(std::string name, std::vector<int64_t> shape, float bound) {
  declared_.push_back({std::move(shape), bound});
  all_.push_back({.name = std::move(name)});
  return all_.size() - 1;
}

void Parameters::allocate(uint64_t seed) {
  auto count = [](const std::vector<int64_t>& shape) {
    return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
  };
  int64_t total = 0;
  for (const auto& declared : declared_) total += count(declared.shape);
  values_ = at::zeros({total}, at::kFloat);
  gradients_ = at::zeros({total}, at::kFloat);
  int64_t at = 0;
  for (size_t i = 0; i < all_.size(); ++i) {
    const int64_t size = count(declared_[i].shape);
    recsys_data::Random random(recsys_data::mix(seed, recsys_data::id_of_text(all_[i].name)));
    float* values = values_.data_ptr<float>() + at;
    for (int64_t k = 0; k < size; ++k)
      values[k] = static_cast<float>(2 * random.uniform() - 1) * declared_[i].bound;
    all_[i].value = values_.narrow(0, at, size).view(declared_[i].shape);
    all_[i].gradient = gradients_.narrow(0, at, size).view(declared_[i].shape);
    at += size;
  }
}

}  // namespace tessera::recsys_train
