// Conversions of counts and bytes that formulas need everywhere.
#pragma once

#include <cstdint>

namespace tessera {

// A count as a factor of a formula; exact up to 2^53.
constexpr double real(int64_t count) {
  return static_cast<double>(count);
}

constexpr double gib(double bytes) {
  return bytes / (1 << 30);
}

}  // namespace tessera
