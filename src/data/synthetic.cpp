#include "data/synthetic.h"

#include <algorithm>

namespace tessera::data {
namespace {

// splitmix64 (Steele et al. 2014).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t x = state_ += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(next() % static_cast<uint64_t>(n)); }

 private:
  uint64_t state_;
};

}  // namespace

Sample SyntheticSource::sample(int64_t global_index) const {
  Random random(options_.seed * 0x2545f4914f6cdd1du + static_cast<uint64_t>(global_index));
  Sample sample;
  while (static_cast<int64_t>(sample.tokens.size()) < options_.seq) {
    auto start = static_cast<int64_t>(sample.tokens.size());
    int64_t length = std::min(1 + random.below(2 * options_.documents_mean_tokens), options_.seq - start);
    int64_t token = random.below(options_.vocab);
    for (int64_t i = 0; i < length; ++i) {
      sample.tokens.push_back(token);
      sample.positions.push_back(i);
      sample.starts.push_back(static_cast<int32_t>(start));
      token = (token * 7 + 3 + 11 * random.below(options_.successors)) % options_.vocab;
      sample.targets.push_back(i + 1 < length ? token : kNoTarget);
    }
  }
  return sample;
}

}  // namespace tessera::data
