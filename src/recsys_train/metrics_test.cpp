#include "recsys_train/metrics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "recsys_data/random.h"

namespace tessera::recsys_train {
namespace {

struct Scored {
  std::vector<float> logits, labels;
};
// Logits on a coarse grid when `grid`, so that many are tied.
Scored scored(size_t rows, bool grid, uint64_t seed) {
  recsys_data::Random random(seed);
  Scored out;
  for (size_t i = 0; i < rows; ++i) {
    double logit = random.normal();
    if (grid) logit = std::round(logit * 4) / 4;
    out.logits.push_back(static_cast<float>(logit));
    out.labels.push_back(random.uniform() < 1 / (1 + std::exp(-logit)) ? 1.f : 0.f);
  }
  return out;
}

double auc_of_all_pairs(const Scored& data) {
  double ordered = 0, pairs = 0;
  for (size_t i = 0; i < data.logits.size(); ++i)
    for (size_t j = 0; j < data.logits.size(); ++j) {
      if (data.labels[i] != 1 || data.labels[j] != 0) continue;
      ++pairs;
      ordered += data.logits[i] > data.logits[j] ? 1 : data.logits[i] == data.logits[j] ? 0.5 : 0;
    }
  return ordered / pairs;
}

TEST(Auc, EqualsTheShareOfAllPairsWithTiesAsHalf) {
  for (bool grid : {false, true}) {
    Scored data = scored(700, grid, 3);
    data.logits[5] = -0.f;
    data.logits[6] = 0.f;
    EXPECT_DOUBLE_EQ(exact_auc(data.logits, data.labels), auc_of_all_pairs(data));
  }
}

TEST(Auc, OneClassAloneHasNone) {
  std::vector<float> scores = {1, 2}, labels = {1, 1};
  EXPECT_TRUE(std::isnan(exact_auc(scores, labels)));
  EXPECT_TRUE(std::isnan(quality_of({}, {}).log_loss));
}

TEST(StreamingQuality, DiffersFromTheExactAucByNoMoreThanItsBound) {
  Scored data = scored(20000, false, 4);
  Quality exact = quality_of(data.logits, data.labels);
  for (int64_t bins : {64, 1024, 65536}) {
    StreamingQuality first(bins), second(bins);
    std::span<const float> logits = data.logits, labels = data.labels;
    first.add(logits.first(7000), labels.first(7000));
    second.add(logits.subspan(7000), labels.subspan(7000));
    first.merge(second);
    Quality streamed = first.quality();
    EXPECT_LE(std::abs(streamed.auc - exact.auc), first.auc_error_bound() + 1e-12) << bins;
    EXPECT_NEAR(streamed.log_loss, exact.log_loss, 1e-9);
    EXPECT_NEAR(streamed.calibration, exact.calibration, 1e-9);
    EXPECT_EQ(streamed.rows, exact.rows);
    EXPECT_EQ(streamed.positives, exact.positives);
  }
}

// A model that always predicts the mean label has log loss = entropy, so NE = 1 and calibration = 1.
TEST(Quality, PredictingTheMeanGivesNormalisedEntropyAndCalibrationOne) {
  std::vector<float> labels(1000, 0);
  std::fill_n(labels.begin(), 250, 1.f);
  std::vector<float> logits(1000, static_cast<float>(std::log(0.25 / 0.75)));
  Quality quality = quality_of(logits, labels);
  EXPECT_NEAR(quality.normalised_entropy, 1, 1e-7);
  EXPECT_NEAR(quality.calibration, 1, 1e-7);
  EXPECT_NEAR(quality.log_loss, -0.25 * std::log(0.25) - 0.75 * std::log(0.75), 1e-7);
  EXPECT_EQ(quality.auc, 0.5);
}

TEST(Quality, LogLossOfExtremeLogitsIsFinite) {
  std::vector<float> logits = {200, -200}, labels = {0, 1};
  EXPECT_NEAR(quality_of(logits, labels).log_loss, 200, 1e-9);
}

}  // namespace
}  // namespace tessera::recsys_train
