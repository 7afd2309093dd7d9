#include "model/batch.h"

namespace tessera::model {

Batch make_batch(const std::vector<data::Sample>& samples) {
  int64_t total = 0;
  for (const auto& sample : samples) total += static_cast<int64_t>(sample.tokens.size());
  Batch batch{make({total}, at::kLong), make({total}, at::kLong), make({total}, at::kLong),
              make({total}, at::kInt)};
  int64_t at = 0;
  for (const auto& sample : samples) {
    auto size = static_cast<int64_t>(sample.tokens.size());
    std::copy(sample.tokens.begin(), sample.tokens.end(), batch.tokens.data_ptr<int64_t>() + at);
    std::copy(sample.targets.begin(), sample.targets.end(), batch.targets.data_ptr<int64_t>() + at);
    std::copy(sample.positions.begin(), sample.positions.end(), batch.positions.data_ptr<int64_t>() + at);
    for (int64_t i = 0; i < size; ++i)
      batch.starts.data_ptr<int32_t>()[at + i] =
          sample.starts[static_cast<size_t>(i)] + static_cast<int32_t>(at);
    at += size;
  }
  return batch;
}

}  // namespace tessera::model
