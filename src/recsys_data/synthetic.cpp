#include "recsys_data/synthetic.h"

#include <algorithm>
#include <cmath>

#include "recsys_data/encoding.h"
#include "recsys_data/zipf.h"

namespace tessera::recsys_data {
namespace {

double normal_of(uint64_t seed) {
  return Random(seed).normal();
}

class SyntheticSource : public Source, public EncodedSource {
 public:
  SyntheticSource(SyntheticOptions options, int64_t first, int64_t rows)
      : options_(std::move(options)), first_(first), rows_(rows) {
    for (int64_t i = 0; i < options_.numbers; ++i) {
      features_.numeric.push_back(fmt::format("I{}", i + 1));
      encodings_.numbers.emplace_back();
    }
    for (size_t s = 0; s < options_.cardinalities.size(); ++s) {
      features_.slots.push_back(fmt::format("C{}", s + 1));
      encodings_.ids.push_back({.kind = IdEncoding::Kind::number, .several = !options_.ids_per_row.empty()});
      ranks_.emplace_back(options_.exponent, static_cast<uint64_t>(options_.cardinalities[s]));
      ids_of_a_row_ += static_cast<double>(ids_in(s));
    }
    for (int64_t i = 0; i < options_.numbers; ++i)
      number_weights_.push_back(normal_of(mix(options_.seed, static_cast<uint64_t>(i) + 1000)));
  }

  const Features& features() const override { return features_; }
  const FeatureEncodings& encodings() const override { return encodings_; }
  int64_t rows() const override { return rows_; }
  Status start_epoch(int64_t) override {
    at_ = 0;
    return {};
  }

  Status next(int64_t max_rows, Batch& batch) override {
    clear(batch);
    int64_t count = std::min(max_rows, rows_ - at_);
    for (int64_t i = 0; i < count; ++i) {
      auto [logit, drawn] = append(first_ + at_ + i, batch);
      batch.labels.push_back(drawn < 1 / (1 + std::exp(-logit)) ? 1.f : 0.f);
    }
    at_ += count;
    batch.rows = count;
    return {};
  }

  Status skip(int64_t rows) override {
    at_ = std::min(at_ + rows, rows_);
    return {};
  }

  // The true logit of a row, whose features are appended, and the random number that decides its label.
  std::pair<double, double> append(int64_t index, Batch& batch) const {
    Random random(mix(options_.seed, static_cast<uint64_t>(index)));
    double ids = 0, numbers = 0;
    for (size_t s = 0; s < ranks_.size(); ++s) {
      for (int64_t k = 0; k < ids_in(s); ++k) {
        uint64_t id = ranks_[s](random);
        batch.slots[s].ids.push_back(id);
        ids += normal_of(mix(mix(options_.seed + 7, s), id));
      }
      if (!options_.ids_per_row.empty())
        batch.slots[s].offsets.push_back(static_cast<int64_t>(batch.slots[s].ids.size()));
    }
    for (double weight : number_weights_) {
      double value = random.normal();
      batch.numeric.push_back(static_cast<float>(value));
      numbers += weight * value;
    }
    double logit = options_.bias + options_.signal * ids / std::sqrt(std::max(1.0, ids_of_a_row_)) +
                   options_.number_signal * numbers / std::sqrt(std::max<double>(1, number_weights_.size()));
    return {logit, random.uniform()};
  }

  void clear(Batch& batch) const {
    batch.rows = 0;
    batch.labels.clear();
    batch.numeric.clear();
    batch.slots.resize(ranks_.size());
    for (SlotIds& slot : batch.slots) {
      slot.ids.clear();
      slot.offsets.clear();
      if (!options_.ids_per_row.empty()) slot.offsets.push_back(0);
    }
  }

 private:
  int64_t ids_in(size_t slot) const { return options_.ids_per_row.empty() ? 1 : options_.ids_per_row[slot]; }

  SyntheticOptions options_;
  int64_t first_, rows_, at_ = 0;
  Features features_;
  FeatureEncodings encodings_;
  std::vector<Zipf> ranks_;
  std::vector<double> number_weights_;
  double ids_of_a_row_ = 0;
};

}  // namespace

std::vector<int64_t> mlperf_cardinalities() {
  return {40000000, 39060, 17295, 7424, 20265, 3,  7122,     1543,     63,       40000000, 3067956, 405282, 10,
          2209,     11938, 155,   4,    976,   14, 40000000, 40000000, 40000000, 590152,   12973,   108,    36};
}

std::vector<int64_t> mlperf_ids_per_row() {
  return {3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1};
}

Status validate(const SyntheticOptions& options) {
  for (int64_t cardinality : options.cardinalities)
    if (cardinality < 1) return invalid("synthetic slot of {} ids: expected at least 1", cardinality);
  if (!options.ids_per_row.empty() && options.ids_per_row.size() != options.cardinalities.size())
    return invalid("ids_per_row has {} entries for {} slots", options.ids_per_row.size(),
                   options.cardinalities.size());
  for (int64_t count : options.ids_per_row)
    if (count < 0) return invalid("ids_per_row: got {}, expected at least 0", count);
  if (!(options.exponent > 0)) return invalid("exponent {}: expected a number above 0", options.exponent);
  if (options.numbers < 0) return invalid("numbers {}: expected at least 0", options.numbers);
  return {};
}

std::unique_ptr<Source> make_synthetic_source(SyntheticOptions options, int64_t first, int64_t rows) {
  return std::make_unique<SyntheticSource>(std::move(options), first, rows);
}

double best_auc(const SyntheticOptions& options, int64_t first, int64_t rows) {
  SyntheticSource source(options, first, rows);
  std::vector<double> logits;
  Batch batch;
  for (int64_t i = 0; i < rows; ++i) {
    source.clear(batch);
    logits.push_back(source.append(first + i, batch).first);
  }
  // Each row is positive with weight p and negative with weight 1 - p; pairs of a row with itself do not count.
  std::sort(logits.begin(), logits.end());
  double negatives = 0, positives = 0, ordered = 0, same_row = 0;
  for (double logit : logits) {
    double p = 1 / (1 + std::exp(-logit));
    ordered += p * negatives;
    positives += p;
    negatives += 1 - p;
    same_row += p * (1 - p);
  }
  return ordered / (positives * negatives - same_row);
}

}  // namespace tessera::recsys_data
