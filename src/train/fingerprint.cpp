#include "train/fingerprint.h"

#include <span>

#include "core/hash.h"

namespace tessera::train {
namespace {

template <class Word>
uint64_t sum_words(uint64_t key, const Word* words, int64_t index, int64_t count) {
  uint64_t sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += mix(mix(key + static_cast<uint64_t>(index + i)) + words[i]);
  return sum;
}

}  // namespace

uint64_t name_key(std::string_view name) {
  return hash64(std::as_bytes(std::span(name.data(), name.size())));
}

uint64_t element_sum(uint64_t key, const at::Tensor& values, int64_t offset, int64_t index, int64_t count) {
  const void* data = values.const_data_ptr();
  if (values.scalar_type() == at::kFloat)
    return sum_words(key, static_cast<const uint32_t*>(data) + offset, index, count);
  return sum_words(key, static_cast<const uint16_t*>(data) + offset, index, count);
}

}  // namespace tessera::train
