#include "core/exact_sum.h"

#include <bit>
#include <cmath>
#include <limits>

namespace tessera {
namespace {
constexpr int kDigitBits = 32;
constexpr int kLowestExponent = -1074;  // of the last mantissa bit of the smallest subnormal
}  // namespace

void ExactSum::add(double value) {
  if (value == 0) return;
  if (!std::isfinite(value)) {
    if (std::isnan(value))
      ++limbs_[kLimbs + 1];
    else
      limbs_[kLimbs] += value > 0 ? 1 : int64_t{1} << 31;
    return;
  }
  uint64_t bits = std::bit_cast<uint64_t>(value);
  int exponent = static_cast<int>(bits >> 52 & 0x7ff);
  uint64_t mantissa = bits & ((uint64_t{1} << 52) - 1);
  if (exponent > 0)
    mantissa |= uint64_t{1} << 52;
  else
    exponent = 1;
  int position = exponent - 1075 - kLowestExponent;  // bit position of the mantissa's last bit
  int limb = position / kDigitBits, shift = position % kDigitBits;
  uint64_t low = mantissa << shift, high = shift == 0 ? 0 : mantissa >> (64 - shift);
  const uint64_t digits[3] = {low & 0xffffffffu, low >> kDigitBits, high};
  int64_t sign = value < 0 ? -1 : 1;
  for (int i = 0; i < 3; ++i) limbs_[static_cast<size_t>(limb + i)] += sign * static_cast<int64_t>(digits[i]);
}

void ExactSum::merge(const ExactSum& other) {
  for (size_t i = 0; i < limbs_.size(); ++i) limbs_[i] += other.limbs_[i];
}

double ExactSum::value() const {
  if (limbs_[kLimbs + 1] != 0) return std::numeric_limits<double>::quiet_NaN();
  if (limbs_[kLimbs] != 0) {
    bool positive = (limbs_[kLimbs] & 0x7fffffff) != 0, negative = limbs_[kLimbs] >> 31 != 0;
    if (positive && negative) return std::numeric_limits<double>::quiet_NaN();
    return positive ? std::numeric_limits<double>::infinity() : -std::numeric_limits<double>::infinity();
  }
  // Carry to digits in [0, 2^32), the sign left in the top digit: a unique form, whatever the order of
  // additions.
  std::array<int64_t, kLimbs> digits{};
  int64_t carry = 0;
  for (size_t i = 0; i < kLimbs; ++i) {
    int64_t total = limbs_[i] + carry;
    carry = total >> kDigitBits;
    digits[i] = total - (carry << kDigitBits);
  }
  bool negative = carry < 0;
  if (negative) {  // two's complement, so that the leading digits do not cancel below
    int64_t add = 1;
    for (auto& digit : digits) {
      int64_t total = (0xffffffff - digit) + add;
      add = total >> kDigitBits;
      digit = total & 0xffffffff;
    }
  }
  double result = 0;
  int used = 0;
  for (int i = kLimbs - 1; i >= 0 && used < 4; --i) {
    if (used == 0 && digits[static_cast<size_t>(i)] == 0) continue;
    result += std::ldexp(static_cast<double>(digits[static_cast<size_t>(i)]), i * kDigitBits + kLowestExponent);
    ++used;
  }
  return negative ? -result : result;
}

}  // namespace tessera
