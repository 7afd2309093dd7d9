// Hashes that do not depend on where elements lie: a sum modulo 2^64 of a mix of (name, index, bits) of every
// element. Ranks add what they hold; the sum over ranks is the hash of the whole.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>

namespace tessera::train {

// splitmix64's finaliser (Steele et al. 2014): a bijection of 64 bits.
inline uint64_t mix(uint64_t x) {
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

uint64_t name_key(std::string_view name);

// Sum over `count` consecutive elements of a contiguous float32 or bf16 tensor from `offset`, whose indices
// start at `index`.
uint64_t element_sum(uint64_t key, const at::Tensor& values, int64_t offset, int64_t index, int64_t count);

}  // namespace tessera::train
