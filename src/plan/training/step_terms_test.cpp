#include "plan/training/step_terms.h"

#include <gtest/gtest.h>

#include "plan/training/gpu_candidates.h"
#include "plan/training/memory_terms.h"
#include "plan/training/testing.h"

namespace tessera::plan {
namespace {

using testing::request_for;
using testing::setup_for;

void expect_equal(const TrainingMemory& a, const TrainingMemory& b, const TrainingLayout& layout) {
  EXPECT_EQ(a.parameters, b.parameters) << to_string(layout);
  EXPECT_EQ(a.gradients, b.gradients) << to_string(layout);
  EXPECT_EQ(a.optimizer, b.optimizer) << to_string(layout);
  EXPECT_EQ(a.activations, b.activations) << to_string(layout);
  EXPECT_EQ(a.gathered, b.gathered) << to_string(layout);
  EXPECT_EQ(a.workspace, b.workspace) << to_string(layout);
  EXPECT_EQ(a.buffers, b.buffers) << to_string(layout);
  EXPECT_EQ(a.required, b.required) << to_string(layout);
}

// Layouts in the order of the search, each timed and weighed with the terms that all before it left behind.
void expect_shared_terms_change_nothing(const GpuPlanRequest& request) {
  TrainingSetup setup = setup_for(request);
  StepTerms shared;
  MemoryTerms memory;
  int64_t timed = 0;
  auto check = [&](const TrainingLayout& layout) {
    setup.layout = layout;
    if (!validate(setup).ok()) return;
    ++timed;
    StepTerms own;
    TrainingStep alone = training_step_time(setup, request.cluster, request.software, own);
    TrainingStep step = training_step_time(setup, request.cluster, request.software, shared);
    ASSERT_EQ(step.seconds, alone.seconds) << to_string(layout);
    ASSERT_EQ(step.mfu, alone.mfu) << to_string(layout);
    ASSERT_EQ(step.breakdown.bubble, alone.breakdown.bubble) << to_string(layout);
    expect_equal(memory.fullest(setup), fullest(training_memory(setup)), layout);
  };
  for (TrainingLayout layout : training_candidates(request)) {
    check(layout);
    // Recomputation of some layers costs a share that depends on the depth of a stage.
    layout.recompute = {.full = Recomputation::Full::first, .layers = 2};
    check(layout);
    layout.recompute = {.core_attention = true};
    check(layout);
    if (layout.pp % 2 == 0) {
      layout.virtual_stages = 1;
      for (PipelineKind kind : {PipelineKind::dualpipe, PipelineKind::zb_v, PipelineKind::gpipe}) {
        layout.schedule = kind;
        check(layout);
      }
    }
  }
  EXPECT_GT(timed, 300);
}

TEST(StepTerms, SharedBetweenLayoutsTheyGiveEachTheStepAndTheMemoryThatItHasAlone) {
  expect_shared_terms_change_nothing(request_for("gpt3-175b", "a100-80g", 64, 2048, 64));
  expect_shared_terms_change_nothing(request_for("deepseek-v3", "h100", 64, 32768, 64));
}

TEST(StepTerms, StagesHoldEveryLayerAndBothEndsOnce) {
  GpuPlanRequest request = request_for("deepseek-v3", "h100", 64, 4096, 64);
  TrainingSetup setup = setup_for(request);
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
