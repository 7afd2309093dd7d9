#include "recsys_train/metrics.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/result.h"

namespace tessera::recsys_train {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

double sigmoid(double logit) {
  return 1 / (1 + std::exp(-logit));
}

// -log p(label) without overflow: log(1 + e^-|x|) + max(x, 0) - x y.
double log_loss(double logit, double label) {
  return std::log1p(std::exp(-std::abs(logit))) + std::max(logit, 0.0) - logit * label;
}

// A float's bits in an order in which integers compare as the floats do.
uint32_t ordered_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

double entropy(double mean) {
  return mean <= 0 || mean >= 1 ? 0 : -mean * std::log(mean) - (1 - mean) * std::log(1 - mean);
}

void finish(Quality& quality, double loss, double predicted) {
  if (quality.rows == 0) {
    quality.log_loss = quality.normalised_entropy = quality.calibration = kNone;
    return;
  }
  auto rows = static_cast<double>(quality.rows), positives = static_cast<double>(quality.positives);
  quality.log_loss = loss / rows;
  double base = entropy(positives / rows);
  quality.normalised_entropy = base > 0 ? quality.log_loss / base : kNone;
  quality.calibration = positives > 0 ? predicted / positives : kNone;
}

}  // namespace

double exact_auc(std::span<const float> scores, std::span<const float> labels) {
  TESSERA_REQUIRE(scores.size() == labels.size(), "{} scores for {} labels", scores.size(), labels.size());
  std::vector<uint64_t> keys(scores.size());  // score above, label in the lowest bit
  for (size_t i = 0; i < keys.size(); ++i)
    keys[i] = (uint64_t{ordered_bits(scores[i] + 0.f)} << 1) | (labels[i] > 0.5f ? 1u : 0u);
  std::sort(keys.begin(), keys.end());
  double negatives = 0, positives = 0, ordered = 0;
  for (size_t i = 0; i < keys.size();) {
    double equal[2] = {0, 0};
    for (uint64_t score = keys[i] >> 1; i < keys.size() && keys[i] >> 1 == score; ++i) ++equal[keys[i] & 1];
    ordered += equal[1] * (negatives + equal[0] / 2);
    negatives += equal[0];
    positives += equal[1];
  }
  return negatives * positives > 0 ? ordered / (negatives * positives) : kNone;
}

Quality quality_of(std::span<const float> logits, std::span<const float> labels) {
  Quality quality{.rows = static_cast<int64_t>(logits.size()), .auc = exact_auc(logits, labels)};
  double loss = 0, predicted = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    quality.positives += labels[i] > 0.5f;
    loss += log_loss(logits[i], labels[i]);
    predicted += sigmoid(logits[i]);
  }
  finish(quality, loss, predicted);
  return quality;
}

StreamingQuality::StreamingQuality(int64_t bins)
    : positives_(static_cast<size_t>(bins)), negatives_(static_cast<size_t>(bins)) {}

void StreamingQuality::add(std::span<const float> logits, std::span<const float> labels) {
  const auto bins = static_cast<double>(positives_.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    double probability = sigmoid(logits[i]);
    auto bin = std::min(static_cast<size_t>(probability * bins), positives_.size() - 1);
    ++(labels[i] > 0.5f ? positives_ : negatives_)[bin];
    loss_ += log_loss(logits[i], labels[i]);
    predicted_ += probability;
  }
}

void StreamingQuality::merge(const StreamingQuality& other) {
  TESSERA_REQUIRE(positives_.size() == other.positives_.size(), "merging different bins");
  for (size_t i = 0; i < positives_.size(); ++i) {
    positives_[i] += other.positives_[i];
    negatives_[i] += other.negatives_[i];
  }
  loss_ += other.loss_;
  predicted_ += other.predicted_;
}

Quality StreamingQuality::quality() const {
  Quality quality;
  double negatives = 0, positives = 0, ordered = 0;
  for (size_t i = 0; i < positives_.size(); ++i) {
    auto p = static_cast<double>(positives_[i]), n = static_cast<double>(negatives_[i]);
    ordered += p * (negatives + n / 2);
    negatives += n;
    positives += p;
  }
  quality.rows = static_cast<int64_t>(negatives + positives);
  quality.positives = static_cast<int64_t>(positives);
  quality.auc = negatives * positives > 0 ? ordered / (negatives * positives) : kNone;
  finish(quality, loss_, predicted_);
  return quality;
}

double StreamingQuality::auc_error_bound() const {
  double negatives = 0, positives = 0, tied = 0;
  for (size_t i = 0; i < positives_.size(); ++i) {
    auto p = static_cast<double>(positives_[i]), n = static_cast<double>(negatives_[i]);
    tied += p * n;
    negatives += n;
    positives += p;
  }
  return negatives * positives > 0 ? tied / (negatives * positives) / 2 : kNone;
}

void StreamingQuality::reset() {
  std::fill(positives_.begin(), positives_.end(), 0);
  std::fill(negatives_.begin(), negatives_.end(), 0);
  loss_ = predicted_ = 0;
}

}  // namespace tessera::recsys_train
