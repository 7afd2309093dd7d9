#include "plan/training/step_time.h"

#include <gtest/gtest.h>

#include <cmath>

#include "plan/catalogue.h"
#include "plan/training/pipeline_time.h"

namespace tessera::plan {
namespace {

std::vector<PipelineStage> even(size_t stages, PipelineStage time) {
  return std::vector<PipelineStage>(stages, time);
}

TEST(PipelineTime, ClosedFormsEqualTheRecurrenceOverTheTableForEvenStages) {
  PipelineStage time{.forward = 1, .backward_input = 1.25, .backward_weight = 0.75};
  for (int64_t stages : {2, 4, 8})
    for (int64_t rounds : {1, 2, 5}) {
      int64_t micro_batches = stages * rounds;
      auto all = even(static_cast<size_t>(stages), time);
      for (auto kind : {PipelineKind::gpipe, PipelineKind::one_f_one_b}) {
        double closed = pipeline_closed_form(kind, 1, micro_batches, all, 0).seconds;
        double exact = pipeline_recurrence(pipeline_table(kind, stages, 1, micro_batches), 1, all, 0);
        EXPECT_NEAR(closed, exact, 1e-9) << to_string(kind) << " " << stages << " " << micro_batches;
      }
      for (int64_t chunks : {2, 3}) {
        auto table = pipeline_table(PipelineKind::one_f_one_b, stages, chunks, micro_batches);
        double closed = pipeline_closed_form(PipelineKind::one_f_one_b, chunks, micro_batches, all, 0).seconds;
        EXPECT_NEAR(closed, pipeline_recurrence(table, chunks, all, 0), 1e-9) << stages << " " << chunks;
      }
    }
}

// Qi et al. 2023: (p - 1)(F + B - W) of bubble with F = B = W, a third of 1F1B's.
TEST(PipelineTime, ZeroBubbleScheduleLosesAThirdOfOneForwardOneBackward) {
  PipelineStage time{.forward = 1, .backward_input = 1, .backward_weight = 1};
  auto all = even(4, time);
  double exact = pipeline_recurrence(pipeline_table(PipelineKind::zb_h1, 4, 1, 16), 1, all, 0);
  double closed = pipeline_closed_form(PipelineKind::zb_h1, 1, 16, all, 0).seconds;
  EXPECT_NEAR(closed, 16 * 3 + 3, 1e-9);
  EXPECT_NEAR(exact, closed, 1e-9);
}

// Forwards less weight gradients: activations stay until the products' inputs are used for the last time.
int64_t most_in_flight(const std::vector<PipelineAction>& actions) {
  int64_t now = 0, most = 0;
  for (const PipelineAction& action : actions) {
    now += action.kind == PipelineAction::Kind::forward;
    now -=
        action.kind == PipelineAction::Kind::backward_weight || action.kind == PipelineAction::Kind::backward;
    most = std::max(most, now);
  }
  return most;
}

// Qi et al. 2023, table 1: bubbles (p - 1)(F + B - W) and (p - 1)(F + B - 2 W), p and 2 p - 1 micro-batches
// held.
TEST(PipelineTime, ZeroBubbleTablesHaveTheBubblesAndActivationsOfTheirPaper) {
  for (int64_t p : {2, 4, 8})
    for (const PipelineStage& time :
         {PipelineStage{1, 1, 1}, PipelineStage{1, 1.5, 0.5}, PipelineStage{2, 3, 1}}) {
      int64_t m = 3 * p;
      auto all = even(static_cast<size_t>(p), time);
      double busy = static_cast<double>(m) * time.total(), pass = time.forward + time.backward_input;
      const std::pair<PipelineKind, double> kinds[] = {{PipelineKind::zb_h1, pass - time.backward_weight},
                                                       {PipelineKind::zb_h2, pass - 2 * time.backward_weight}};
      for (const auto& [kind, bubble] : kinds) {
        auto table = pipeline_table(kind, p, 1, m);
        EXPECT_NEAR(pipeline_recurrence(table, 1, all, 0) - busy, static_cast<double>(p - 1) * bubble, 1e-9);
        EXPECT_NEAR(pipeline_closed_form(kind, 1, m, all, 0).bubble, static_cast<double>(p - 1) * bubble, 1e-9);
        for (const auto& actions : table)
          EXPECT_LE(most_in_flight(actions), kind == PipelineKind::zb_h1 ? p : 2 * p - 1);
        EXPECT_EQ(most_in_flight(table[0]), kind == PipelineKind::zb_h1 ? p : 2 * p - 1);
      }
    }
}

// Golden values: p = 8, m = 32 loses 17.95 % to the bubble, 5.19 % with four virtual stages.
TEST(PipelineTime, BubbleSharesEqualTheirGoldenValues) {
  auto all = even(8, {.forward = 1, .backward_input = 1, .backward_weight = 1});
  PipelineTime plain = pipeline_closed_form(PipelineKind::one_f_one_b, 1, 32, all, 0);
  PipelineTime interleaved = pipeline_closed_form(PipelineKind::one_f_one_b, 4, 32, all, 0);
  EXPECT_NEAR(plain.bubble / plain.seconds, 0.1795, 1e-4);
  EXPECT_NEAR(interleaved.bubble / interleaved.seconds, 0.0519, 1e-4);
}

TEST(PipelineTime, OneSlowStageIsExactAndManyUnevenOnesAreBoundedFromBelow) {
  auto all = even(4, {.forward = 1, .backward_input = 1, .backward_weight = 1});
  all[3] = {.forward = 2, .backward_input = 2, .backward_weight = 2};
  auto table = pipeline_table(PipelineKind::one_f_one_b, 4, 1, 12);
  EXPECT_NEAR(pipeline_closed_form(PipelineKind::one_f_one_b, 1, 12, all, 0).seconds,
              pipeline_recurrence(table, 1, all, 0), 1e-9);
  for (size_t i = 0; i < 4; ++i) all[i].forward = 1 + 0.3 * static_cast<double>((i * 7) % 4);
  EXPECT_LE(pipeline_closed_form(PipelineKind::one_f_one_b, 1, 12, all, 0).seconds,
            pipeline_recurrence(table, 1, all, 0) + 1e-9);
}

TrainingSetup llama_405b() {
  TrainingSetup setup;
  setup.model = *find_model("llama-3.1-405b");
  setup.work = {.seq = 8192, .global_batch = 512};
  setup.layout.dp = 8, setup.layout.tp = 8, setup.layout.pp = 8, setup.layout.sequence_parallel = true;
  setup.layout.virtual_stages = 8;
  return setup;
}

// planner.md b1: 2.52398 TFLOP per token at 8,192 tokens with the mask credited.
TEST(StepTime, ModelFlopsEqualTheGoldenValueOfLlama405B) {
  GpuCluster h100 = *load_gpu_cluster("h100");
  auto step = training_step_time(llama_405b(), h100, newest_software());
  ASSERT_TRUE(step.ok()) << step.error().message;
  EXPECT_NEAR(step->model_flops / (512.0 * 8192) / 1e12, 2.52398, 0.002);
}

TEST(StepTime, PartsSumToTheStepAndNoStepBeatsThePeak) {
  GpuCluster h100 = *load_gpu_cluster("h100");
  auto step = training_step_time(llama_405b(), h100, newest_software());
  ASSERT_TRUE(step.ok());
  EXPECT_NEAR(step->breakdown.total(), step->seconds, 1e-9 * step->seconds);
  EXPECT_LT(step->mfu, 0.75);
  EXPECT_GT(step->mfu, 0.25);
  EXPECT_LT(step->low, step->seconds);
  EXPECT_GT(step->high, step->seconds);
}

TEST(StepTime, FullRecomputationCostsAThirdMoreComputation) {
  GpuCluster h100 = *load_gpu_cluster("h100");
  TrainingSetup setup = llama_405b();
  double plain = training_step_time(setup, h100, newest_software())->breakdown.compute;
  setup.layout.recompute.full = Recomputation::Full::all;
  double full = training_step_time(setup, h100, newest_software())->breakdown.compute;
  EXPECT_NEAR(full / plain, 4.0 / 3, 0.05);
}

TEST(StepTime, TwiceTheBatchCostsTwiceTheTimeLessTheFixedParts) {
  GpuCluster h100 = *load_gpu_cluster("h100");
  TrainingSetup setup = llama_405b();
  double once = training_step_time(setup, h100, newest_software())->seconds;
  setup.work.global_batch *= 2;
  double twice = training_step_time(setup, h100, newest_software())->seconds;
  EXPECT_LT(twice, 2 * once);
  EXPECT_GT(twice, 1.8 * once);
}

TEST(StepTime, LayoutsThatCannotStartAreRefusedByName) {
  TrainingSetup setup = llama_405b();
  setup.work.global_batch = 500;
  auto step = training_step_time(setup, *load_gpu_cluster("h100"), newest_software());
  ASSERT_FALSE(step.ok());
  EXPECT_NE(step.error().message.find("500"), std::string::npos) << step.error().message;
}

}  // namespace
}  // namespace tessera::plan
