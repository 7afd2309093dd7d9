// A shuffle of 0..size-1 that needs no memory: a keyed Feistel network on the next power of four, walked until
// the value falls inside. A pure function of (size, key, index), the same on every machine.
#pragma once

#include <cstdint>

namespace tessera::data {

// A well-mixed 64-bit value (splitmix64's finaliser); derives keys from (seed, epoch) and the like.
uint64_t mix(uint64_t value);
inline uint64_t mix(uint64_t a, uint64_t b) {
  return mix(mix(a) ^ b);
}

class Permutation {
 public:
  // REQUIRES: size >= 1.
  Permutation(int64_t size, uint64_t key);
  int64_t size() const { return size_; }
  int64_t operator()(int64_t index) const;

 private:
  uint64_t once(uint64_t value) const;
  int64_t size_;
  uint64_t key_;
  int half_bits_;
};

}  // namespace tessera::data
