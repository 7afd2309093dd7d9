// Reading numbers and separators out of text without a byte-wise loop: 16 bytes at once for separators (SSE2,
// part of every x86-64), 8 at once for hexadecimal digits (arithmetic on a 64-bit word).
//
// All functions may look at up to 63 bytes past the end of the text, which the caller's buffer must have.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace tessera::recsys_data {

constexpr int64_t kScanPadding = 64;  // readable bytes past the end of a text

// First occurrence of `a` or `b` at or after `at`; `end` when there is none before it.
inline const char* find_either(const char* at, const char* end, char a, char b) {
#ifdef __SSE2__
  const __m128i first = _mm_set1_epi8(a), second = _mm_set1_epi8(b);
  for (; at < end; at += 16) {
    __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    __m128i hit = _mm_or_si128(_mm_cmpeq_epi8(bytes, first), _mm_cmpeq_epi8(bytes, second));
    if (auto mask = static_cast<unsigned>(_mm_movemask_epi8(hit)); mask != 0) {
      const char* found = at + std::countr_zero(mask);
      return found < end ? found : end;
    }
  }
  return end;
#else
  while (at < end && *at != a && *at != b) ++at;
  return at;
#endif
}

// Exactly eight hexadecimal digits at `at`; false when one of them is none.
inline bool parse_hex8(const char* at, uint32_t& value) {
  constexpr uint64_t ones = 0x0101010101010101ULL, high = 0x8080808080808080ULL;
  uint64_t text;
  std::memcpy(&text, at, 8);
  uint64_t lower = text | (ones * 0x20);
  // Bit 7 of a byte of x + (0x80 - c) says x >= c; no byte carries into the next since all are below 0x80.
  uint64_t digit = (text + ones * (0x80 - '0')) & ~(text + ones * (0x80 - '9' - 1));
  uint64_t letter = (lower + ones * (0x80 - 'a')) & ~(lower + ones * (0x80 - 'f' - 1));
  if ((text & high) != 0 || ((digit | letter) & high) != high) return false;
  uint64_t nibbles = (text & (ones * 0x0f)) + ((letter & high) >> 7) * 9;
  if constexpr (std::endian::native == std::endian::little) nibbles = __builtin_bswap64(nibbles);
  nibbles = (nibbles | (nibbles >> 4)) & 0x00ff00ff00ff00ffULL;
  nibbles = (nibbles | (nibbles >> 8)) & 0x0000ffff0000ffffULL;
  value = static_cast<uint32_t>(nibbles | (nibbles >> 16));
  return true;
}

// An optional minus and 1 to 18 decimal digits from `at`; returns the byte after them, or nullptr.
inline const char* parse_integer(const char* at, int64_t& value) {
  bool negative = *at == '-';
  if (negative) ++at;
  int64_t sum = 0;
  const char* first = at;
  while (static_cast<unsigned>(*at - '0') < 10 && at - first < 18) sum = sum * 10 + (*at++ - '0');
  value = negative ? -sum : sum;
  return at == first ? nullptr : at;
}

inline std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r'))
    text.remove_suffix(1);
  return text;
}

}  // namespace tessera::recsys_data
