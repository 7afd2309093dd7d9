// Products in few bits in plain C++: the definition of what avx2/quant.cpp and avx512vnni/quant.cpp do faster.
#include "kernels/quant_table.h"

namespace tessera::kernels {
namespace generic {
namespace {

inline constexpr int64_t kQuantRows = 1;

struct Floats {
  float v[16];
};
struct Integers {
  int32_t v[16];
};
struct Bytes {
  uint8_t v[64];
};

inline Floats splat(float x) {
  Floats result;
  for (float& value : result.v) value = x;
  return result;
}
inline Floats operator*(Floats a, Floats b) {
  for (int i = 0; i < 16; ++i) a.v[i] *= b.v[i];
  return a;
}
inline Floats fma(Floats a, Floats b, Floats c) {
  for (int i = 0; i < 16; ++i) c.v[i] = __builtin_fmaf(a.v[i], b.v[i], c.v[i]);
  return c;
}
inline void store(float* p, Floats x) {
  for (int i = 0; i < 16; ++i) p[i] = x.v[i];
}
inline float widen_half(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31u, fraction = half & 1023u;
  if (exponent == 31) return __builtin_bit_cast(float, sign | 0x7f800000u | fraction << 13);
  if (exponent > 0) return __builtin_bit_cast(float, sign | (exponent + 112) << 23 | fraction << 13);
  const float size = static_cast<float>(fraction) * 0x1p-24f;
  return sign != 0 ? -size : size;
}
inline Floats load_halves(const uint16_t* p) {
  Floats result;
  for (int i = 0; i < 16; ++i) result.v[i] = widen_half(p[i]);
  return result;
}
inline Floats to_floats(Integers x) {
  Floats result;
  for (int i = 0; i < 16; ++i) result.v[i] = static_cast<float>(x.v[i]);
  return result;
}
inline Integers splat_integer(int32_t x) {
  Integers result;
  for (int32_t& value : result.v) value = x;
  return result;
}
inline Bytes load_bytes(const uint8_t* p) {
  Bytes result;
  for (int i = 0; i < 64; ++i) result.v[i] = p[i];
  return result;
}
inline Bytes low_halves(Bytes x) {
  for (uint8_t& value : x.v) value = value & 15;
  return x;
}
inline Bytes high_halves(Bytes x) {
  for (uint8_t& value : x.v) value = value >> 4;
  return x;
}
template <int64_t bytes>
inline void prefetch(const uint8_t*) {}
inline Integers start8(int32_t sum) {
  return splat_integer(-128 * sum);
}
inline Integers dot4(Integers sums, Bytes weights, const int8_t* a) {
  for (int i = 0; i < 64; ++i) sums.v[i / 4] += weights.v[i] * a[i % 4];
  return sums;
}
inline Integers dot8(Integers sums, Bytes weights, const int8_t* a) {
  return dot4(sums, weights, a);
}

#define TESSERA_ISA_NAME "generic"
#include "kernels/body/quant.h"

}  // namespace
}  // namespace generic

const QuantTable generic_quant_table = generic::quant_table_of_isa;

}  // namespace tessera::kernels
