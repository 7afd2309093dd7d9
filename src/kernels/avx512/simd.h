// Sixteen float32 lanes in one AVX-512 register. Same operations and bits as generic/simd.h. Two levels use it,
// each in a namespace of its own, so that the linker mixes no code of theirs.
#pragma once

#include <immintrin.h>

#include <cstdint>

#ifndef TESSERA_AVX512
#define TESSERA_AVX512 avx512
#endif

namespace tessera::kernels::TESSERA_AVX512 {

struct Bf16 {
  uint16_t bits;
};
struct F16 {
  __m512 v;
};
struct M16 {
  __mmask16 m;
};

inline constexpr int kRowTile = 12;
constexpr int panels_for(int rows) {
  return rows <= 2 ? 6 : rows <= 6 ? 4 : 2;
}

inline F16 splat(float x) {
  return {_mm512_set1_ps(x)};
}
inline F16 zero() {
  return {_mm512_setzero_ps()};
}
inline F16 operator+(F16 a, F16 b) {
  return {_mm512_add_ps(a.v, b.v)};
}
inline F16 operator-(F16 a, F16 b) {
  return {_mm512_sub_ps(a.v, b.v)};
}
inline F16 operator*(F16 a, F16 b) {
  return {_mm512_mul_ps(a.v, b.v)};
}
inline F16 operator/(F16 a, F16 b) {
  return {_mm512_div_ps(a.v, b.v)};
}
inline F16 fma(F16 a, F16 b, F16 c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
inline F16 max(F16 a, F16 b) {
  return {_mm512_max_ps(a.v, b.v)};
}
inline F16 sqrt(F16 a) {
  return {_mm512_sqrt_ps(a.v)};
}
inline M16 less(F16 a, F16 b) {
  return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)};
}
inline M16 is_nan(F16 a) {
  return {_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q)};
}
inline F16 select(M16 m, F16 yes, F16 no) {
  return {_mm512_mask_blend_ps(m.m, no.v, yes.v)};
}
// Lanes i with begin <= i < end.
inline M16 lanes(int64_t begin, int64_t end) {
  const uint32_t first = static_cast<uint32_t>(begin < 0 ? 0 : begin > 16 ? 16 : begin);
  const uint32_t last = static_cast<uint32_t>(end < 0 ? 0 : end > 16 ? 16 : end);
  const uint32_t below_last = (1u << last) - 1, below_first = (1u << first) - 1;
  return {static_cast<__mmask16>(below_last & ~below_first)};
}

// p * 2^n, where n was rounded by adding 1.5 * 2^23: its bits are the low bits of t.
inline F16 scale_by_power(F16 p, F16 t) {
  const __m512i shifted = _mm512_slli_epi32(_mm512_castps_si512(t.v), 23);
  return {_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p.v), shifted))};
}

inline F16 widen(__m256i bits) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}
inline __m256i narrow(F16 x) {
  const __m512i bits = _mm512_castps_si512(x.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded =
      _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd), 16);
  return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(rounded, is_nan(x).m, _mm512_set1_epi32(0x7fc0)));
}

inline F16 load(const float* p) {
  return {_mm512_loadu_ps(p)};
}
inline F16 load(const Bf16* p) {
  return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline void store(float* p, F16 x) {
  _mm512_storeu_ps(p, x.v);
}
inline void store(Bf16* p, F16 x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(x));
}
inline F16 load_part(const float* p, int64_t n) {
  return {_mm512_maskz_loadu_ps(lanes(0, n).m, p)};
}
inline void store_part(float* p, F16 x, int64_t n) {
  _mm512_mask_storeu_ps(p, lanes(0, n).m, x.v);
}
inline F16 load_part(const Bf16* p, int64_t n) {
  return widen(_mm256_maskz_loadu_epi16(lanes(0, n).m, p));
}
inline void store_part(Bf16* p, F16 x, int64_t n) {
  _mm256_mask_storeu_epi16(p, lanes(0, n).m, narrow(x));
}

// Two bf16 of successive k in each word of 32 bits, the earlier one in the lower half.
inline F16 join(F16 earlier, F16 later) {
  const __m512i lower = _mm512_srli_epi32(_mm512_castps_si512(earlier.v), 16);
  return {_mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(later.v), lower))};
}
inline F16 load_words(const Bf16* p, int64_t n) {
  const __mmask32 present = n >= 32 ? 0xffffffffu : (1u << n) - 1;
  return {_mm512_castsi512_ps(_mm512_maskz_loadu_epi16(present, p))};
}
// Sixteen int8, or sixteen E4M3 (S.EEEE.MMM, bias 7, no infinities).
inline F16 load_int8(const uint8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
inline F16 load_fp8(const uint8_t* p) {
  const __m512i x = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m512i size = _mm512_slli_epi32(_mm512_and_si512(x, _mm512_set1_epi32(0x7f)), 20);
  const __m512i sign = _mm512_slli_epi32(_mm512_and_si512(x, _mm512_set1_epi32(0x80)), 24);
  const __m512 value = _mm512_mul_ps(_mm512_castsi512_ps(size), _mm512_set1_ps(0x1p120f));
  return {_mm512_or_ps(value, _mm512_castsi512_ps(sign))};
}
#ifdef __AVX512BF16__
struct SubnormalsAreZero {};  // the instruction needs no mode
inline F16 fma_pairs(F16 a, F16 b, F16 c) {
  return {_mm512_dpbf16_ps(c.v, reinterpret_cast<__m512bh>(a.v), reinterpret_cast<__m512bh>(b.v))};
}
#else
struct SubnormalsAreZero {
  SubnormalsAreZero() { _mm_setcsr(saved | 0x8040); }
  ~SubnormalsAreZero() { _mm_setcsr(saved); }
  const unsigned saved = _mm_getcsr();
};
inline F16 fma_pairs(F16 a, F16 b, F16 c) {
  auto earlier = [](F16 x) {
    return F16{_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(x.v), 16))};
  };
  auto later = [](F16 x) {
    return F16{_mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x.v), _mm512_set1_epi32(-0x10000)))};
  };
  return fma(earlier(a), earlier(b), fma(later(a), later(b), c));
}
#endif

// The fixed tree over the lanes: i + (i + 8), then distances 4, 2, 1.
inline float sum(F16 x) {
  const __m256 upper = _mm512_extractf32x8_ps(x.v, 1);
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x.v), upper);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
inline float maximum(F16 x) {
  const __m256 upper = _mm512_extractf32x8_ps(x.v, 1);
  const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(x.v), upper);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

// rows[i][0..15] for 16 rows -> columns[k][0..15] at stride 16: columns[k][i] = rows[i][k].
inline void transpose(const F16* rows, float* columns) {
  __m512 r[16], s[16];
  for (int i = 0; i < 16; i += 2) {
    s[i] = _mm512_unpacklo_ps(rows[i].v, rows[i + 1].v);
    s[i + 1] = _mm512_unpackhi_ps(rows[i].v, rows[i + 1].v);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_shuffle_ps(s[i], s[i + 2], 0x44);
    r[i + 1] = _mm512_shuffle_ps(s[i], s[i + 2], 0xee);
    r[i + 2] = _mm512_shuffle_ps(s[i + 1], s[i + 3], 0x44);
    r[i + 3] = _mm512_shuffle_ps(s[i + 1], s[i + 3], 0xee);
  }
  // r[4 g + c] holds in its 128-bit part p the column 4 p + c of the rows 4 g .. 4 g + 3.
  for (int c = 0; c < 4; ++c) {
    const __m512 low = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88);   // parts 0, 2 of both
    const __m512 high = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd);  // parts 1, 3
    const __m512 low2 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);
    const __m512 high2 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
    _mm512_storeu_ps(columns + c * 16, _mm512_shuffle_f32x4(low, low2, 0x88));
    _mm512_storeu_ps(columns + (4 + c) * 16, _mm512_shuffle_f32x4(high, high2, 0x88));
    _mm512_storeu_ps(columns + (8 + c) * 16, _mm512_shuffle_f32x4(low, low2, 0xdd));
    _mm512_storeu_ps(columns + (12 + c) * 16, _mm512_shuffle_f32x4(high, high2, 0xdd));
  }
}

}  // namespace tessera::kernels::TESSERA_AVX512
