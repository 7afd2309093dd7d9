#include "data/unigram.h"

#include <cmath>

namespace tessera::data {

double unigram_entropy(std::span<const int64_t> counts) {
  double total = 0, sum = 0;
  for (int64_t count : counts) {
    if (count == 0) continue;
    auto n = static_cast<double>(count);
    total += n;
    sum += n * std::log(n);
  }
  return total == 0 ? 0 : std::log(total) - sum / total;
}

}  // namespace tessera::data
