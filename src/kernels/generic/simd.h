// Sixteen float32 lanes in plain C++: the definition of what avx2/simd.h and avx512/simd.h do faster.
#pragma once

#include <cstdint>

namespace tessera::kernels::generic {

struct Bf16 {
  uint16_t bits;
};
struct F16 {
  float v[16];
};
struct M16 {
  bool m[16];
};

inline constexpr int kRowTile = 4;
constexpr int panels_for(int) {
  return 1;
}

template <class F>
inline F16 each(F f) {
  F16 result;
  for (int i = 0; i < 16; ++i) result.v[i] = f(i);
  return result;
}
inline uint32_t bits_of(float x) {
  return __builtin_bit_cast(uint32_t, x);
}
inline float float_of(uint32_t bits) {
  return __builtin_bit_cast(float, bits);
}

inline F16 splat(float x) {
  return each([&](int) { return x; });
}
inline F16 zero() {
  return splat(0.0f);
}
inline F16 operator+(F16 a, F16 b) {
  return each([&](int i) { return a.v[i] + b.v[i]; });
}
inline F16 operator-(F16 a, F16 b) {
  return each([&](int i) { return a.v[i] - b.v[i]; });
}
inline F16 operator*(F16 a, F16 b) {
  return each([&](int i) { return a.v[i] * b.v[i]; });
}
inline F16 operator/(F16 a, F16 b) {
  return each([&](int i) { return a.v[i] / b.v[i]; });
}
inline F16 fma(F16 a, F16 b, F16 c) {
  return each([&](int i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
}
inline F16 max(F16 a, F16 b) {  // the second one when either is not a number, as the instruction does
  return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline F16 sqrt(F16 a) {
  return each([&](int i) { return __builtin_sqrtf(a.v[i]); });
}
inline M16 less(F16 a, F16 b) {
  M16 result;
  for (int i = 0; i < 16; ++i) result.m[i] = a.v[i] < b.v[i];
  return result;
}
inline M16 is_nan(F16 a) {
  M16 result;
  for (int i = 0; i < 16; ++i) result.m[i] = __builtin_isnan(a.v[i]);
  return result;
}
inline F16 select(M16 m, F16 yes, F16 no) {
  return each([&](int i) { return m.m[i] ? yes.v[i] : no.v[i]; });
}
// Lanes i with begin <= i < end.
inline M16 lanes(int64_t begin, int64_t end) {
  M16 result;
  for (int i = 0; i < 16; ++i) result.m[i] = i >= begin && i < end;
  return result;
}

// p * 2^n, where n was rounded by adding 1.5 * 2^23: its bits are the low bits of t.
inline F16 scale_by_power(F16 p, F16 t) {
  return each([&](int i) { return float_of(bits_of(p.v[i]) + (bits_of(t.v[i]) << 23)); });
}

inline F16 load_part(const float* p, int64_t n) {
  return each([&](int i) { return i < n ? p[i] : 0.0f; });
}
inline F16 load_part(const Bf16* p, int64_t n) {
  return each([&](int i) { return i < n ? float_of(static_cast<uint32_t>(p[i].bits) << 16) : 0.0f; });
}
inline void store_part(float* p, F16 x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = x.v[i];
}
inline void store_part(Bf16* p, F16 x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = bits_of(x.v[i]);
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    p[i].bits = static_cast<uint16_t>(__builtin_isnan(x.v[i]) ? 0x7fc0 : rounded);
  }
}
template <class T>
inline F16 load(const T* p) {
  return load_part(p, 16);
}
template <class T>
inline void store(T* p, F16 x) {
  store_part(p, x, 16);
}

// Two bf16 of successive k in each word of 32 bits, the earlier one in the lower half.
inline F16 join(F16 earlier, F16 later) {
  return each([&](int i) { return float_of(bits_of(later.v[i]) | bits_of(earlier.v[i]) >> 16); });
}
inline F16 load_words(const Bf16* p, int64_t n) {
  auto half = [&](int64_t i) { return i < n ? static_cast<uint32_t>(p[i].bits) : 0u; };
  return each([&](int i) { return float_of(half(2 * i) | half(2 * i + 1) << 16); });
}
// Sixteen int8, or sixteen E4M3 (S.EEEE.MMM, bias 7, no infinities).
inline F16 load_int8(const uint8_t* p) {
  return each([&](int i) { return static_cast<float>(static_cast<int8_t>(p[i])); });
}
inline F16 load_fp8(const uint8_t* p) {
  return each([&](int i) {
    const uint32_t sign = static_cast<uint32_t>(p[i] & 0x80) << 24;
    return float_of(bits_of(float_of(static_cast<uint32_t>(p[i] & 0x7f) << 20) * 0x1p120f) | sign);
  });
}
struct SubnormalsAreZero {};  // fma_pairs does it
inline float flush(float x) {
  return (bits_of(x) & 0x7f800000u) == 0 ? float_of(bits_of(x) & 0x80000000u) : x;
}
inline F16 fma_pairs(F16 a, F16 b, F16 c) {
  auto step = [](uint32_t x, uint32_t y, float z) {
    return flush(__builtin_fmaf(flush(float_of(x)), flush(float_of(y)), flush(z)));
  };
  return each([&](int i) {
    const uint32_t x = bits_of(a.v[i]), y = bits_of(b.v[i]);
    return step(x << 16, y << 16, step(x & 0xffff0000u, y & 0xffff0000u, c.v[i]));
  });
}

// The fixed tree over the lanes: i + (i + 8), then distances 4, 2, 1.
inline float sum(F16 x) {
  for (int distance = 8; distance > 0; distance /= 2)
    for (int i = 0; i < distance; ++i) x.v[i] = x.v[i] + x.v[i + distance];
  return x.v[0];
}
inline float maximum(F16 x) {
  for (int distance = 8; distance > 0; distance /= 2)
    for (int i = 0; i < distance; ++i) x.v[i] = x.v[i] > x.v[i + distance] ? x.v[i] : x.v[i + distance];
  return x.v[0];
}

// rows[i][0..15] for 16 rows -> columns[k][0..15] at stride 16: columns[k][i] = rows[i][k].
inline void transpose(const F16* rows, float* columns) {
  for (int k = 0; k < 16; ++k)
    for (int i = 0; i < 16; ++i) columns[k * 16 + i] = rows[i].v[k];
}

}  // namespace tessera::kernels::generic
