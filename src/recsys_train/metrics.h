// How well scores predict clicks: the figures that recommender work quotes.
//
//   AUC           probability that a random positive ranks above a random negative; ties count half
//   log loss      mean of -log p(label), nats
//   NE            normalised entropy: log loss over the entropy of the mean label (He et al., "Practical
//   lessons from
//                 predicting clicks on ads at Facebook", 2014); below 1 is better than the mean
//   calibration   mean prediction over mean label; 1 is right
//
// An AUC or NE that is not defined (one class only, no rows) is NaN.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tessera::recsys_train {

// Exact, by sorting. Scores of any scale; labels 0 or 1. O(n log n) time, 8 n bytes.
double exact_auc(std::span<const float> scores, std::span<const float> labels);

struct Quality {
  int64_t rows = 0, positives = 0;
  double auc = 0, log_loss = 0, normalised_entropy = 0, calibration = 0;
};

// From logits, all at once; AUC is exact.
Quality quality_of(std::span<const float> logits, std::span<const float> labels);

// The same over a stream in constant memory. AUC is by counts in `bins` equal intervals of probability: rows
// that share one count as ties, so it is off by at most half the share of pairs that do.
class StreamingQuality {
 public:
  explicit StreamingQuality(int64_t bins = 1 << 16);
  void add(std::span<const float> logits, std::span<const float> labels);
  void merge(const StreamingQuality& other);  // REQUIRES: equal bins
  Quality quality() const;
  double auc_error_bound() const;
  void reset();

 private:
  std::vector<int64_t> positives_, negatives_;
  double loss_ = 0, predicted_ = 0;
};

}  // namespace tessera::recsys_train
