// Products in few bits with AVX2 (and F16C): pairs of bytes are multiplied and added to 16 bits, which is exact
// because no pair of |weights| up to 128 and activations up to 127 exceeds 32,767.
#include <immintrin.h>

#include "kernels/quant_table.h"

namespace tessera::kernels {
namespace avx2 {
namespace {

inline constexpr int64_t kAhead = 4096;  // bytes: the hardware's own prefetch stops at each page
inline constexpr int64_t kQuantRows = 3;

struct Floats {
  __m256 lo, hi;
};
struct Integers {
  __m256i lo, hi;
};
struct Bytes {
  __m256i lo, hi;
};

inline Floats splat(float x) {
  return {_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
inline Floats operator*(Floats a, Floats b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
inline Floats fma(Floats a, Floats b, Floats c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline void store(float* p, Floats x) {
  _mm256_storeu_ps(p, x.lo);
  _mm256_storeu_ps(p + 8, x.hi);
}
inline Floats load_halves(const uint16_t* p) {
  auto eight = [](const uint16_t* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  };
  return {eight(p), eight(p + 8)};
}
inline Floats to_floats(Integers x) {
  return {_mm256_cvtepi32_ps(x.lo), _mm256_cvtepi32_ps(x.hi)};
}
inline Integers splat_integer(int32_t x) {
  return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
}
inline Bytes load_bytes(const uint8_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
}
inline Bytes low_halves(Bytes x) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(x.lo, mask), _mm256_and_si256(x.hi, mask)};
}
inline Bytes high_halves(Bytes x) {
  return low_halves({_mm256_srli_epi16(x.lo, 4), _mm256_srli_epi16(x.hi, 4)});
}
template <int64_t bytes>
inline void prefetch(const uint8_t* p) {
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(p + kAhead + i, _MM_HINT_T0);
}
inline __m256i quad(const int8_t* a) {
  int32_t four;
  __builtin_memcpy(&four, a, 4);
  return _mm256_set1_epi32(four);
}
// sums + the four products of each lane; `unsigned_bytes` times `signed_bytes`.
inline __m256i add_products(__m256i sums, __m256i unsigned_bytes, __m256i signed_bytes) {
  const __m256i pairs = _mm256_maddubs_epi16(unsigned_bytes, signed_bytes);
  return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
inline Integers dot4(Integers sums, Bytes weights, const int8_t* a) {
  const __m256i four = quad(a);
  return {add_products(sums.lo, weights.lo, four), add_products(sums.hi, weights.hi, four)};
}
inline Integers start8(int32_t) {
  return splat_integer(0);
}
// q - 128 as size and sign; the sign goes to the activation.
inline Integers dot8(Integers sums, Bytes weights, const int8_t* a) {
  const __m256i four = quad(a), top = _mm256_set1_epi8(-128);
  auto half = [&](__m256i sum, __m256i q) {
    const __m256i weight = _mm256_xor_si256(q, top);
    return add_products(sum, _mm256_abs_epi8(weight), _mm256_sign_epi8(four, weight));
  };
  return {half(sums.lo, weights.lo), half(sums.hi, weights.hi)};
}

#define TESSERA_ISA_NAME "avx2"
#include "kernels/body/quant.h"

}  // namespace
}  // namespace avx2

const QuantTable avx2_quant_table = avx2::quant_table_of_isa;

}  // namespace tessera::kernels
