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

// Even pieces of stages of this time.
PipelineTime by_table(PipelineKind kind, int64_t stages, int64_t chunks, int64_t micro_batches,
                      PieceTime time) {
  bool dualpipe = kind == PipelineKind::dualpipe;
  for (double PieceTime::*part : {&PieceTime::forward, &PieceTime::backward_input, &PieceTime::backward_weight})
    time.*part /= dualpipe ? 1 : static_cast<double>(chunks);
  std::vector<PieceTime> pieces(static_cast<size_t>(pieces_of(kind, stages, chunks)), time);
  return pipeline_recurrence(kind, chunks, micro_batches, stages, pieces, 0);
}

TEST(PipelineTime, ClosedFormsEqualTheRecurrenceOverTheTableForEvenStages) {
  PipelineStage time{.forward = 1, .backward_input = 1.25, .backward_weight = 0.75};
  for (int64_t stages : {2, 4, 8})
    for (int64_t rounds : {1, 2, 5, 23}) {
      int64_t m = stages * rounds;
      auto all = even(static_cast<size_t>(stages), time);
      auto expect_equal = [&](PipelineKind kind, int64_t chunks) {
        double closed = pipeline_closed_form(kind, chunks, m, all, 0).seconds;
        EXPECT_NEAR(closed, by_table(kind, stages, chunks, m, time).seconds, 1e-9)
            << to_string(kind) << " " << stages << " " << m;
      };
      for (auto kind : {PipelineKind::gpipe, PipelineKind::one_f_one_b}) expect_equal(kind, 1);
      for (int64_t chunks : {2, 3}) expect_equal(PipelineKind::one_f_one_b, chunks);
      if (rounds == 1) continue;  // the papers' forms are those of many micro-batches
      for (auto kind : {PipelineKind::zb_h1, PipelineKind::zb_h2}) expect_equal(kind, 1);
      expect_equal(PipelineKind::zb_v, 2);
    }
}

// F = B: exact. F < B: within a tenth of the bubble plus one backward of inputs.
TEST(PipelineTime, ClosedFormOfDualPipeIsThatOfItsTable) {
  for (int64_t stages : {2, 4, 8, 16})
    for (int64_t m : {2 * stages, 2 * stages + 2, 10 * stages}) {
      for (const PieceTime& t : {PieceTime{1, 1, 1}, {1, 1, 0.5}, {1, 1, 1, 0}}) {
        auto all = even(static_cast<size_t>(stages), t);
        PipelineTime closed = pipeline_closed_form(PipelineKind::dualpipe, 2, m, all, 0);
        EXPECT_NEAR(closed.seconds, by_table(PipelineKind::dualpipe, stages, 2, m, t).seconds, 1e-9);
      }
      PieceTime usual{1, 1.2, 0.8};
      PipelineTime closed =
          pipeline_closed_form(PipelineKind::dualpipe, 2, m, even(static_cast<size_t>(stages), usual), 0);
      EXPECT_NEAR(closed.bubble, by_table(PipelineKind::dualpipe, stages, 2, m, usual).bubble,
                  0.1 * closed.bubble + 1.2);
    }
}

// Micro-batches beyond the steady state are not run one by one.
TEST(PipelineTime, SteadyStateOfUnevenStagesGrowsLinearly) {
  for (auto kind : {PipelineKind::gpipe, PipelineKind::one_f_one_b, PipelineKind::zb_h1, PipelineKind::zb_h2,
                    PipelineKind::zb_v, PipelineKind::dualpipe})
    for (int64_t virtual_stages : {1, 2}) {
      if (virtual_stages > 1 && kind != PipelineKind::one_f_one_b) continue;
      int64_t stages = 4, chunks = chunks_of(kind, virtual_stages), m = 200;
      std::vector<PieceTime> pieces;
      for (int64_t i = 0; i < pieces_of(kind, stages, chunks); ++i) {
        double factor = 1 + 0.1 * static_cast<double>(i * 5 % 7);
        pieces.push_back({factor, 1.1 * factor, 0.9 * factor, 0.2});
      }
      Schedule whole = make_schedule(kind, stages, chunks, m);
      double longest = 0;
      for (const auto& row : spans(whole, pieces, 0.05))
        longest = std::max(longest, row.back().end - row.front().start);
      PipelineTime time = pipeline_recurrence(kind, chunks, m, stages, pieces, 0.05);
      EXPECT_NEAR(time.seconds, longest, 1e-9 * longest) << to_string(kind) << " " << chunks;
      EXPECT_NEAR(time.busy + time.bubble + time.sends, time.seconds, 1e-9 * longest);
      EXPECT_GE(time.bubble, 0);
      EXPECT_GE(time.sends, 0);
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
  auto exact = [&] { return pipeline_recurrence(PipelineKind::one_f_one_b, 1, 12, 4, all, 0).seconds; };
  EXPECT_NEAR(pipeline_closed_form(PipelineKind::one_f_one_b, 1, 12, all, 0).seconds, exact(), 1e-9);
  for (size_t i = 0; i < 4; ++i) all[i].forward = 1 + 0.3 * static_cast<double>((i * 7) % 4);
  EXPECT_LE(pipeline_closed_form(PipelineKind::one_f_one_b, 1, 12, all, 0).seconds, exact() + 1e-9);
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

TEST(StepTime, IntervalsAreWiderOnDevicesThatNoPublishedRunHasShown) {
  auto half_width = [](const char* cluster, const SoftwareGeneration& software) {
    auto step = training_step_time(llama_405b(), *load_gpu_cluster(cluster), software);
    EXPECT_NEAR(step->high / step->seconds, step->seconds / step->low, 1e-9);
    return step->high / step->seconds - 1;
  };
  SoftwareGeneration software = newest_software();
  software.half_width = 0.1;
  EXPECT_NEAR(half_width("h100", software), 0.1, 1e-9);
  EXPECT_GT(half_width("mi300x", software), 0.25);
  software.half_width = 0.6;  // a generation that varies by more keeps its own
  EXPECT_NEAR(half_width("mi300x", software), 0.6, 1e-9);
}

// PaLM (arXiv 2204.02311, section 2): attention and MLP read one norm, and their sum is reduced once.
TEST(StepTime, ParallelBlocksAreReducedOnceWhereOthersAreTwice) {
  GpuCluster h100 = *load_gpu_cluster("h100");
  TrainingSetup setup = llama_405b();
  double twice = training_step_time(setup, h100, newest_software())->breakdown.tp;
  for (Layer& layer : setup.model.kinds) layer.norms = 1;
  double once = training_step_time(setup, h100, newest_software())->breakdown.tp;
  EXPECT_NEAR(once / twice, 0.5, 0.02);  // the embedding's reduction stays
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
