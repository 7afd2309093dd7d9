#include "plan/training/step_terms.h"

#include <gtest/gtest.h>

#include "plan/catalogue.h"
#include "plan/training/gpu_candidates.h"

namespace tessera::plan {
namespace {

GpuPlanRequest request_for(const char* model, const char* cluster, int64_t gpus, int64_t seq, int64_t batch) {
  GpuPlanRequest request;
  request.model = *find_model(model);
  request.cluster = for_training(*load_gpu_cluster(cluster));
  request.software = newest_software();
  request.work.seq = seq, request.work.global_batch = batch;
  request.gpus = gpus;
  return request;
}

// Layouts in the order of the search, each timed with the terms that all before it left behind.
void expect_shared_terms_change_nothing(const GpuPlanRequest& request) {
  TrainingSetup setup{.model = request.model, .work = request.work, .layout = {}, .options = request.options};
  StepTerms shared;
  int64_t timed = 0;
  auto check = [&](const TrainingLayout& layout) {
    setup.layout = layout;
    auto alone = training_step_time(setup, request.cluster, request.software);
    if (!alone) return;
    ++timed;
    TrainingStep step = training_step_time(setup, request.cluster, request.software, shared);
    ASSERT_EQ(step.seconds, alone->seconds) << to_string(layout);
    ASSERT_EQ(step.mfu, alone->mfu) << to_string(layout);
    ASSERT_EQ(step.breakdown.bubble, alone->breakdown.bubble) << to_string(layout);
  };
  for (TrainingLayout layout : training_candidates(request)) {
    check(layout);
    // Recomputation of some layers costs a share that depends on the depth of a stage.
    layout.recompute = {.full = Recomputation::Full::first, .layers = 2};
    check(layout);
    layout.recompute = {.core_attention = true};
    check(layout);
    if (layout.pp % 2 == 0) {
      layout.virtual_stages = 1, layout.schedule = PipelineKind::dualpipe;
      check(layout);
    }
  }
  EXPECT_GT(timed, 300);
}

TEST(StepTerms, SharedBetweenLayoutsTheyGiveEachTheStepThatItHasAlone) {
  expect_shared_terms_change_nothing(request_for("gpt3-175b", "a100-80g", 64, 2048, 64));
  expect_shared_terms_change_nothing(request_for("deepseek-v3", "h100", 64, 32768, 64));
}

TEST(StepTerms, StagesHoldEveryLayerAndBothEndsOnce) {
  GpuPlanRequest request = request_for("deepseek-v3", "h100", 64, 4096, 64);
  TrainingSetup setup{.model = request.model, .work = request.work, .layout = {}, .options = request.options};
  for (int64_t pp : {1, 2, 4, 16})
    for (int64_t chunks : {1, 2}) {
      if (pp == 1 && chunks > 1) continue;
      setup.layout.pp = pp, setup.layout.virtual_stages = chunks;
      StageShapes shapes = stage_shapes(setup);
      std::vector<double> sum(request.model.kinds.size() + 2, 0), expected = sum;
      for (size_t shape : shapes.of_stage)
        for (size_t part = 0; part < sum.size(); ++part) sum[part] += shapes.different[shape].counts[part];
      for (int32_t kind : request.model.order) ++expected[static_cast<size_t>(kind)];
      expected[expected.size() - 2] = expected[expected.size() - 1] = 1;
      EXPECT_EQ(sum, expected) << pp << " " << chunks;
    }
}

}  // namespace
}  // namespace tessera::plan
