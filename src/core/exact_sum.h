// A sum of floating-point numbers depends on their order, and the order depends on the layout. ExactSum adds
// doubles without rounding in a wide fixed-point number, so any order, any partition and any merge give the
// same bits.
//
// Range: magnitudes from 2^-1074 to 2^1023 are exact; not-a-number and infinities are remembered and win.
// The limbs may be added element by element across ranks (int64 sums); up to 2^30 additions in total are safe.
// Method: "small superaccumulator", R. Neal, Fast exact summation using small and large superaccumulators,
// 2015.
#pragma once

#include <array>
#include <cstdint>

namespace tessera {

class ExactSum {
 public:
  static constexpr int kLimbs = 70;               // 32-bit digits in 64-bit limbs, and one limb of flags
  using Limbs = std::array<int64_t, kLimbs + 2>;  // the last two: additions of +-infinity and of not-a-number

  void add(double value);
  void merge(const ExactSum& other);
  double value() const;  // correctly truncated to about 100 bits, then rounded

  Limbs& limbs() { return limbs_; }
  const Limbs& limbs() const { return limbs_; }

 private:
  Limbs limbs_{};
};

}  // namespace tessera
