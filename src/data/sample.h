// One training sequence. Documents are packed back to back: a token sees only its own document, positions
// restart at each document, and the last token of a document predicts nothing. A document cut by the sample's
// first token begins there: its positions count from 0, so none reaches seq.
#pragma once

#include <cstdint>
#include <vector>

namespace tessera::data {

inline constexpr int64_t kNoTarget = -1;

struct Sample {
  std::vector<int64_t> tokens;     // seq
  std::vector<int64_t> targets;    // seq: next token, or kNoTarget
  std::vector<int64_t> positions;  // seq: place within the document's part here
  std::vector<int32_t> starts;     // seq: index within this sample of the first visible token
  int64_t valid_tokens() const {
    int64_t count = 0;
    for (int64_t target : targets) count += target != kNoTarget;
    return count;
  }
};

// Order is a pure function of (seed, global index): any process count and any restart sees the same stream.
// Threads: sample() may be called from any thread.
class SampleSource {
 public:
  virtual ~SampleSource() = default;
  virtual int64_t seq() const = 0;
  virtual Sample sample(int64_t global_index) const = 0;  // global_index >= 0, without end: epochs reshuffle
};

}  // namespace tessera::data
