#include "plan/training/gpu_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "plan/training/gpu_bounds.h"
#include "plan/training/gpu_candidates.h"
#include "plan/training/testing.h"

namespace tessera::plan {
namespace {

using testing::request_for;
using testing::setup_for;

struct Random {
  std::mt19937_64 engine;
  int64_t of(std::initializer_list<int64_t> values) { return values.begin()[engine() % values.size()]; }
};

Layer random_layer(Random& random, int64_t heads) {
  Layer layer;
  layer.mixer = {.kind = MixerKind::attention,
                 .heads = heads,
                 .kv_heads = random.of({heads, heads / 2, 1}),
                 .head_dim = 64,
                 .v_head_dim = 64};
  if (layer.mixer.kv_heads < 1) layer.mixer.kv_heads = 1;
  if (random.of({0, 1}) == 1)
    layer.ffn = {.kind = FfnKind::moe, .experts = random.of({4, 8}), .top_k = 2, .expert_width = 512};
  else
    layer.ffn = {.kind = FfnKind::dense, .width = 2048};
  return layer;
}

// A small model on a few devices with so little memory that some layouts fit and some do not.
GpuPlanRequest random_request(Random& random, const GpuPlanRequest& base) {
  GpuPlanRequest request = base;
  Blueprint model;
  model.name = "random", model.hidden = random.of({512, 1024}), model.vocab = 32000;
  model.tied = random.of({0, 1}) == 1;
  int64_t heads = random.of({4, 8, 16}), layers = random.of({2, 3, 4, 6, 8, 12});
  Layer one = random_layer(random, heads), other = random_layer(random, heads);
  for (int64_t layer = 0; layer < layers; ++layer) model.append(layer % 3 == 0 ? one : other);
  request.model = model;
  request.gpus = random.of({4, 8, 12, 16, 32});
  request.min_gpus = random.of({0, 0, 2});
  request.work.seq = random.of({512, 2048, 32768}), request.work.global_batch = random.of({16, 24, 64, 96});
  request.cluster.device.memory_bytes = 1e9 * static_cast<double>(random.of({4, 6, 8, 12, 30}));
  request.tokens = random.of({0, 1}) == 1 ? 1e9 : 0;
  request.top = random.of({1, 2, 5});
  request.objective = static_cast<Objective>(random.of({0, 1, 2, 3}));
  if (random.of({0, 1}) == 1) request.schedules = *parse_pipeline_kinds("all");
  return request;
}

struct Tried {
  double value;
  TrainingLayout layout;
};

// Every candidate in full, without groups, bounds or shared memory terms.
std::vector<Tried> brute_force(const GpuPlanRequest& request) {
  std::vector<Tried> tried;
  TrainingSetup setup = setup_for(request);
  StepTerms terms;
  std::map<int64_t, Goodput> failures;
  for (const TrainingLayout& layout : training_candidates(request)) {
    setup.layout = layout;
    if (!validate(setup).ok()) continue;
    if (fullest(training_memory(setup)).device > request.cluster.device.memory_bytes) continue;
    TrainingStep step = training_step_time(setup, request.cluster, request.software, terms);
    int64_t devices = layout.devices();
    if (!failures.contains(devices))
      failures[devices] = request.tokens > 0 ? goodput_of(request, devices) : Goodput{};
    tried.push_back({objective_value(request.objective, request.cluster, static_cast<double>(devices),
                                     failures[devices], step.seconds, step.power_share),
                     layout});
  }
  std::stable_sort(tried.begin(), tried.end(),
                   [](const Tried& a, const Tried& b) { return a.value < b.value; });
  return tried;
}

// The best of them by closed forms, ranked by the recurrence.
std::vector<GpuPrediction> ranked_again(const GpuPlanRequest& request, const std::vector<Tried>& tried) {
  std::vector<GpuPrediction> finalists;
  for (size_t i = 0; i < std::min(tried.size(), num_finalists(request)); ++i)
    finalists.push_back(*predict_training(request, tried[i].layout));
  rank_finalists(request, finalists);
  return finalists;
}

TEST(GpuSearch, PrunedOptimumIsThatOfTryingEverythingOnAThousandRandomCases) {
  Random random{std::mt19937_64(20)};
  const GpuPlanRequest bases[] = {request_for("gpt3-175b", "a100-80g", 8, 2048, 64),
                                  request_for("gpt3-175b", "gb200-nvl72", 8, 2048, 64)};
  int64_t fits = 0, nothing = 0, evaluated = 0, space = 0;
#ifdef __SANITIZE_ADDRESS__
  constexpr int kRounds = 200;  // each fifteen times slower there
#else
  constexpr int kRounds = 1000;
#endif
  for (int round = 0; round < kRounds; ++round) {
    GpuPlanRequest request = random_request(random, bases[round % 2]);
    std::vector<Tried> tried = brute_force(request);
    std::vector<GpuPrediction> expected = ranked_again(request, tried);
    GpuPlan plan = *plan_training(request);
    ASSERT_EQ(plan.ranked.size(), std::min(tried.size(), static_cast<size_t>(request.top))) << round;
    for (size_t i = 0; i < plan.ranked.size(); ++i)
      ASSERT_EQ(to_string(plan.ranked[i].setup.layout), to_string(expected[i].setup.layout))
          << round << " " << i;
    ASSERT_EQ(plan.counts.evaluated + plan.counts.pruned(), plan.counts.space);
    ASSERT_EQ(plan.infeasible.size(), plan.ranked.empty() ? 1u : 0u);
    ++(plan.ranked.empty() ? nothing : fits);
    evaluated += plan.counts.evaluated, space += plan.counts.space;
  }
  // The cases are of both kinds, and pruning prunes.
  EXPECT_GT(fits, kRounds * 3 / 10);
  EXPECT_GT(nothing, kRounds / 50);
  EXPECT_LT(evaluated, space / 2);
}

TEST(GpuSearch, NoLayoutIsFasterOrSmallerThanItsFloors) {
  for (const GpuPlanRequest& request : {request_for("gpt3-175b", "a100-80g", 64, 2048, 64),
                                        request_for("deepseek-v3", "h100", 256, 4096, 1024)}) {
    TrainingSetup setup = setup_for(request);
    StepTerms steps;
    MemoryTerms memory;
    double tightest_s = 0, tightest_bytes = 0;
    for (const CandidateGroup& group : candidate_groups(request)) {
      setup.layout = group.layers;
      const ModelTimes& times = steps.times(setup, request.cluster, request.software);
      double floor_s = step_floor_s(setup, times, request.software, group.gpus);
      for (TrainingLayout& layout : group_members(request, group)) {
        for (PipelineKind kind : {PipelineKind::one_f_one_b, PipelineKind::dualpipe, PipelineKind::zb_v}) {
          layout.schedule = kind;
          setup.layout = layout;
          if (!validate(setup).ok()) continue;
          double seconds = training_step_time(setup, request.cluster, request.software, steps).seconds;
          double bytes = memory.fullest(setup).device;
          double floor_bytes = memory_floor_bytes(setup, memory.model(setup));
          EXPECT_LE(floor_s, seconds) << to_string(layout);
          EXPECT_LE(floor_bytes, bytes) << to_string(layout);
          tightest_s = std::max(tightest_s, floor_s / seconds);
          tightest_bytes = std::max(tightest_bytes, floor_bytes / bytes);
        }
      }
    }
    // Bounds that are far below everything would be safe and of no use.
    EXPECT_GT(tightest_s, 0.8);
    EXPECT_GT(tightest_bytes, 0.8);
  }
}

TEST(GpuSearch, LimitOfDaysIsKeptOrNamed) {
  GpuPlanRequest request = request_for("llama-3.1-70b", "h100", 256, 8192, 512);
  request.tokens = 1e11, request.objective = Objective::cost, request.min_gpus = 64, request.max_days = 12;
  GpuPlan plan = *plan_training(request);
  ASSERT_FALSE(plan.ranked.empty());
  for (const GpuPrediction& one : plan.ranked) EXPECT_LE(one.cost.hours, 12 * 24);
  request.max_days = 1;
  plan = *plan_training(request);
  ASSERT_EQ(plan.infeasible.size(), 1u);
  EXPECT_EQ(plan.infeasible[0].unit, "days");
  EXPECT_GT(plan.infeasible[0].needed, 1);
  request.tokens = 0;
  EXPECT_FALSE(plan_training(request).ok());
}

TEST(GpuSearch, ObjectivesDisagreeWhereTheyShould) {
  GpuPlanRequest request = request_for("llama-3.1-70b", "h100", 1024, 8192, 1024);
  request.min_gpus = 64, request.tokens = 1e12;
  auto best = [&](Objective objective) {
    request.objective = objective;
    return plan_training(request)->ranked.at(0);
  };
  GpuPrediction fast = best(Objective::time), cheap = best(Objective::cost), frugal = best(Objective::energy);
  EXPECT_LT(fast.cost.hours, cheap.cost.hours);
  EXPECT_LT(cheap.cost.usd, fast.cost.usd);
  EXPECT_LE(frugal.cost.energy_mwh, cheap.cost.energy_mwh);
  EXPECT_LT(cheap.setup.layout.devices(), fast.setup.layout.devices());
}

}  // namespace
}  // namespace tessera::plan
