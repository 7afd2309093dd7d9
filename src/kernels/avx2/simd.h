// Sixteen float32 lanes as two AVX2 registers. Same operations and bits as generic/simd.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace tessera::kernels::avx2 {

struct Bf16 {
  uint16_t bits;
};
struct F16 {
  __m256 lo, hi;
};
using M16 = F16;  // all bits of a lane set or clear

inline constexpr int kRowTile = 6;
constexpr int panels_for(int rows) {
  return rows == 1 ? 4 : rows == 2 ? 3 : rows == 3 ? 2 : 1;
}

inline F16 splat(float x) {
  return {_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
inline F16 zero() {
  return {_mm256_setzero_ps(), _mm256_setzero_ps()};
}
inline F16 operator+(F16 a, F16 b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
inline F16 operator-(F16 a, F16 b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
inline F16 operator*(F16 a, F16 b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
inline F16 operator/(F16 a, F16 b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
inline F16 fma(F16 a, F16 b, F16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline F16 max(F16 a, F16 b) {
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
inline F16 sqrt(F16 a) {
  return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)};
}
inline M16 less(F16 a, F16 b) {
  return {_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ)};
}
inline M16 is_nan(F16 a) {
  return {_mm256_cmp_ps(a.lo, a.lo, _CMP_UNORD_Q), _mm256_cmp_ps(a.hi, a.hi, _CMP_UNORD_Q)};
}
inline F16 select(M16 m, F16 yes, F16 no) {
  return {_mm256_blendv_ps(no.lo, yes.lo, m.lo), _mm256_blendv_ps(no.hi, yes.hi, m.hi)};
}
// Lanes i with begin <= i < end.
inline M16 lanes(int64_t begin, int64_t end) {
  const int first = static_cast<int>(begin < 0 ? 0 : begin > 16 ? 16 : begin);
  const int last = static_cast<int>(end < 0 ? 0 : end > 16 ? 16 : end);
  const __m256i from = _mm256_set1_epi32(first - 1), to = _mm256_set1_epi32(last);
  const __m256i lo = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), hi = _mm256_add_epi32(lo, _mm256_set1_epi32(8));
  auto inside = [&](__m256i lane) {
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_cmpgt_epi32(lane, from), _mm256_cmpgt_epi32(to, lane)));
  };
  return {inside(lo), inside(hi)};
}

// p * 2^n, where n was rounded by adding 1.5 * 2^23: its bits are the low bits of t.
inline F16 scale_by_power(F16 p, F16 t) {
  auto one = [](__m256 x, __m256 y) {
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(x), _mm256_slli_epi32(_mm256_castps_si256(y), 23)));
  };
  return {one(p.lo, t.lo), one(p.hi, t.hi)};
}

inline F16 load(const float* p) {
  return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
inline F16 load(const Bf16* p) {
  auto widen = [](const Bf16* from) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  };
  return {widen(p), widen(p + 8)};
}
inline void store(float* p, F16 x) {
  _mm256_storeu_ps(p, x.lo);
  _mm256_storeu_ps(p + 8, x.hi);
}
inline void store(Bf16* p, F16 x) {
  auto narrow = [](__m256 value) {
    const __m256i bits = _mm256_castps_si256(value);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0), nan);
  };
  const __m256i packed = _mm256_packus_epi32(narrow(x.lo), narrow(x.hi));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}
inline F16 load_part(const float* p, int64_t n) {
  const M16 m = lanes(0, n);
  return {_mm256_maskload_ps(p, _mm256_castps_si256(m.lo)),
          _mm256_maskload_ps(p + 8, _mm256_castps_si256(m.hi))};
}
inline void store_part(float* p, F16 x, int64_t n) {
  const M16 m = lanes(0, n);
  _mm256_maskstore_ps(p, _mm256_castps_si256(m.lo), x.lo);
  _mm256_maskstore_ps(p + 8, _mm256_castps_si256(m.hi), x.hi);
}
inline F16 load_part(const Bf16* p, int64_t n) {
  Bf16 copy[16] = {};
  for (int64_t i = 0; i < n; ++i) copy[i] = p[i];
  return load(copy);
}
inline void store_part(Bf16* p, F16 x, int64_t n) {
  Bf16 copy[16];
  store(copy, x);
  for (int64_t i = 0; i < n; ++i) p[i] = copy[i];
}

// Two bf16 of successive k in each word of 32 bits, the earlier one in the lower half.
inline F16 join(F16 earlier, F16 later) {
  auto half = [](__m256 low, __m256 high) {
    const __m256i lower = _mm256_srli_epi32(_mm256_castps_si256(low), 16);
    return _mm256_castsi256_ps(_mm256_or_si256(_mm256_castps_si256(high), lower));
  };
  return {half(earlier.lo, later.lo), half(earlier.hi, later.hi)};
}
inline F16 load_words(const Bf16* p, int64_t n) {
  Bf16 copy[32] = {};
  if (n < 32) {
    for (int64_t i = 0; i < n; ++i) copy[i] = p[i];
    p = copy;
  }
  auto words = [&](int64_t first) {
    return _mm256_castsi256_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + first)));
  };
  return {words(0), words(16)};
}
// Sixteen int8, or sixteen E4M3 (S.EEEE.MMM, bias 7, no infinities).
inline F16 load_int8(const uint8_t* p) {
  auto eight = [](const uint8_t* q) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(q))));
  };
  return {eight(p), eight(p + 8)};
}
inline F16 load_fp8(const uint8_t* p) {
  auto eight = [](const uint8_t* q) {
    const __m256i x = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(q)));
    const __m256i size = _mm256_slli_epi32(_mm256_and_si256(x, _mm256_set1_epi32(0x7f)), 20);
    const __m256i sign = _mm256_slli_epi32(_mm256_and_si256(x, _mm256_set1_epi32(0x80)), 24);
    const __m256 value = _mm256_mul_ps(_mm256_castsi256_ps(size), _mm256_set1_ps(0x1p120f));
    return _mm256_or_ps(value, _mm256_castsi256_ps(sign));
  };
  return {eight(p), eight(p + 8)};
}
struct SubnormalsAreZero {
  SubnormalsAreZero() { _mm_setcsr(saved | 0x8040); }
  ~SubnormalsAreZero() { _mm_setcsr(saved); }
  const unsigned saved = _mm_getcsr();
};
inline F16 fma_pairs(F16 a, F16 b, F16 c) {
  auto earlier = [](__m256 x) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x), 16)); };
  auto later = [](__m256 x) { return _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(-0x10000))); };
  auto both = [&](__m256 x, __m256 y, __m256 z) {
    return _mm256_fmadd_ps(earlier(x), earlier(y), _mm256_fmadd_ps(later(x), later(y), z));
  };
  return {both(a.lo, b.lo, c.lo), both(a.hi, b.hi, c.hi)};
}

// The fixed tree over the lanes: i + (i + 8), then distances 4, 2, 1.
inline float sum(F16 x) {
  const __m256 eight = _mm256_add_ps(x.lo, x.hi);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
inline float maximum(F16 x) {
  const __m256 eight = _mm256_max_ps(x.lo, x.hi);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

// rows[i][0..15] for 16 rows -> columns[k][0..15] at stride 16: columns[k][i] = rows[i][k].
inline void transpose8(const F16* rows, bool upper, int64_t half, float* out) {
  __m256 r[8], s[8];
  for (int i = 0; i < 8; ++i) r[i] = upper ? rows[half * 8 + i].hi : rows[half * 8 + i].lo;
  for (int i = 0; i < 8; i += 2) {
    s[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    s[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(s[i], s[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(s[i], s[i + 2], 0xee);
    r[i + 2] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(out + i * 16 + half * 8, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
    _mm256_storeu_ps(out + (i + 4) * 16 + half * 8, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
  }
}
inline void transpose(const F16* rows, float* columns) {
  for (int half = 0; half < 2; ++half) {
    transpose8(rows, false, half, columns);
    transpose8(rows, true, half, columns + 8 * 16);
  }
}

}  // namespace tessera::kernels::avx2
