// Random numbers that are functions of a seed on every machine (the distributions of the standard library are
// not). splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
#pragma once

#include <cmath>
#include <cstdint>

namespace tessera::recsys_data {

inline uint64_t mix(uint64_t value) {
  value += 0x9e3779b97f4a7c15ULL;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31);
}
inline uint64_t mix(uint64_t a, uint64_t b) {
  return mix(mix(a) ^ b);
}

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits() {
    uint64_t value = mix(state_);
    state_ += 0x9e3779b97f4a7c15ULL;
    return value;
  }
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }  // [0, 1)
  // [0, n); its bias of n / 2^64 cannot be seen.
  uint64_t below(uint64_t n) { return static_cast<uint64_t>((static_cast<Wide>(bits()) * n) >> 64); }
  double normal() {  // Box and Muller, one of the two
    double radius = std::sqrt(-2 * std::log(1 - uniform()));
    return radius * std::cos(6.283185307179586 * uniform());
  }

 private:
  __extension__ using Wide = unsigned __int128;
  uint64_t state_;
};

}  // namespace tessera::recsys_data
