#include "data/permutation.h"

#include <algorithm>
#include <bit>

#include "core/result.h"

namespace tessera::data {
namespace {

constexpr uint64_t kRounds = 6;
// Few bits shuffle badly; small sizes walk a larger network instead.
constexpr int kLeastHalfBits = 4;

}  // namespace

uint64_t mix(uint64_t value) {
  value += 0x9E3779B97F4A7C15u;
  value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9u;
  value = (value ^ value >> 27) * 0x94D049BB133111EBu;
  return value ^ value >> 31;
}

Permutation::Permutation(int64_t size, uint64_t key) : size_(size), key_(mix(key)) {
  TESSERA_REQUIRE(size >= 1, "a permutation of {} values", size);
  int bits = std::bit_width(static_cast<uint64_t>(size - 1));
  half_bits_ = std::max(kLeastHalfBits, (bits + 1) / 2);
}

int64_t Permutation::operator()(int64_t index) const {
  TESSERA_REQUIRE(index >= 0 && index < size_, "index {} in a permutation of {}", index, size_);
  auto value = static_cast<uint64_t>(index);
  do value = once(value);
  while (value >= static_cast<uint64_t>(size_));
  return static_cast<int64_t>(value);
}

uint64_t Permutation::once(uint64_t value) const {
  uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t left = value >> half_bits_, right = value & mask;
  for (uint64_t round = 0; round < kRounds; ++round) {
    uint64_t next = left ^ (mix(key_ ^ (right << 8 | round)) & mask);
    left = right;
    right = next;
  }
  return left << half_bits_ | right;
}

}  // namespace tessera::data
