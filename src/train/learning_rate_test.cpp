#include <gtest/gtest.h>

#include <cmath>

#include "train/trainer.h"

namespace tessera::train {
namespace {

OptimizerConfig config_of(const char* schedule) {
  return {.learning_rate = 1e-2, .min_learning_rate = 1e-3, .warmup_steps = 10, .schedule = schedule};
}
constexpr int64_t kSteps = 110;

double rate(const OptimizerConfig& config, int64_t step) {
  return learning_rate_at(config, step, kSteps);
}

TEST(LearningRate, WarmsUpInEqualStepsToThePeakWhateverFollows) {
  for (const char* schedule : {"cosine", "linear", "wsd", "constant"}) {
    OptimizerConfig config = config_of(schedule);
    for (int64_t step = 0; step < 10; ++step)
      EXPECT_NEAR(rate(config, step), 1e-3 * static_cast<double>(step + 1), 1e-15) << schedule;
    EXPECT_NEAR(rate(config, 10), 1e-2, 1e-15) << schedule;
  }
}

TEST(LearningRate, CosineFallsHalfWayInTheMiddleAndSymmetrically) {
  OptimizerConfig config = config_of("cosine");
  EXPECT_NEAR(rate(config, 60), 5.5e-3, 1e-15);
  for (int64_t k = 1; k < 50; ++k) EXPECT_NEAR(rate(config, 60 - k) + rate(config, 60 + k), 1.1e-2, 1e-15);
  EXPECT_NEAR(rate(config, 35), 1e-3 + 9e-3 * (2 + std::sqrt(2.0)) / 4, 1e-15);  // cos(pi / 4)
  EXPECT_NEAR(rate(config, kSteps), 1e-3, 1e-15);
}

TEST(LearningRate, LinearFallsInEqualStepsToTheFloor) {
  OptimizerConfig config = config_of("linear");
  for (int64_t step = 10; step < kSteps; ++step)
    EXPECT_NEAR(rate(config, step) - rate(config, step + 1), 9e-5, 1e-15);
  EXPECT_NEAR(rate(config, kSteps), 1e-3, 1e-15);
}

TEST(LearningRate, WsdStaysAtThePeakUntilItsLastPartAndThenFallsLinearly) {
  OptimizerConfig config = config_of("wsd");
  config.decay_steps = 30;
  for (int64_t step = 10; step <= 80; ++step) EXPECT_NEAR(rate(config, step), 1e-2, 1e-15);
  for (int64_t step = 80; step < kSteps; ++step)
    EXPECT_NEAR(rate(config, step) - rate(config, step + 1), 3e-4, 1e-15);
  EXPECT_NEAR(rate(config, kSteps), 1e-3, 1e-15);
  config.decay_steps = 0;  // a fifth of the steps after warm-up
  EXPECT_NEAR(rate(config, 90), 1e-2, 1e-15);
  EXPECT_LT(rate(config, 91), 1e-2);
}

TEST(LearningRate, StaysAtTheFloorAfterTheDecay) {
  for (const char* schedule : {"cosine", "linear"}) {
    OptimizerConfig config = config_of(schedule);
    config.decay_steps = 50;
    for (int64_t step : {60, 61, 109}) EXPECT_NEAR(rate(config, step), 1e-3, 1e-15) << schedule;
  }
}

}  // namespace
}  // namespace tessera::train
