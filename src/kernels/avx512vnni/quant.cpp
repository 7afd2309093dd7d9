// Products in few bits with the dot products of bytes of AVX-512 VNNI.
// GCC 12 takes the undefined registers of its own AVX-512 header for a mistake of ours (bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include "kernels/quant_table.h"

namespace tessera::kernels {
namespace avx512vnni {
namespace {

inline constexpr int64_t kAhead = 4096;  // bytes: the hardware's own prefetch stops at each page
inline constexpr int64_t kQuantRows = 12;

struct Floats {
  __m512 v;
};
struct Integers {
  __m512i v;
};
struct Bytes {
  __m512i v;
};

inline Floats splat(float x) {
  return {_mm512_set1_ps(x)};
}
inline Floats operator*(Floats a, Floats b) {
  return {_mm512_mul_ps(a.v, b.v)};
}
inline Floats fma(Floats a, Floats b, Floats c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
inline void store(float* p, Floats x) {
  _mm512_storeu_ps(p, x.v);
}
inline Floats load_halves(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline Floats to_floats(Integers x) {
  return {_mm512_cvtepi32_ps(x.v)};
}
inline Integers splat_integer(int32_t x) {
  return {_mm512_set1_epi32(x)};
}
inline Bytes load_bytes(const uint8_t* p) {
  return {_mm512_loadu_si512(p)};
}
inline Bytes low_halves(Bytes x) {
  return {_mm512_and_si512(x.v, _mm512_set1_epi8(15))};
}
inline Bytes high_halves(Bytes x) {
  return {_mm512_and_si512(_mm512_srli_epi16(x.v, 4), _mm512_set1_epi8(15))};
}
template <int64_t bytes>
inline void prefetch(const uint8_t* p) {
  // To the second cache: those that the first one can wait for are few.
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(p + kAhead + i, _MM_HINT_T1);
}
inline Integers start8(int32_t sum) {
  return splat_integer(-128 * sum);
}
inline Integers dot4(Integers sums, Bytes weights, const int8_t* a) {
  int32_t four;
  __builtin_memcpy(&four, a, 4);
  return {_mm512_dpbusd_epi32(sums.v, weights.v, _mm512_set1_epi32(four))};
}
inline Integers dot8(Integers sums, Bytes weights, const int8_t* a) {
  return dot4(sums, weights, a);
}

#define TESSERA_ISA_NAME "avx512vnni"
#include "kernels/body/quant.h"

}  // namespace
}  // namespace avx512vnni

const QuantTable avx512vnni_quant_table = avx512vnni::quant_table_of_isa;

}  // namespace tessera::kernels
