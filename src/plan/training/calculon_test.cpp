#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "plan/training/calculon_search.h"
#include "plan/training/testing.h"

namespace tessera::plan {
namespace {

using testing::request_for;

GpuPlanRequest calculon_request(int64_t gpus, int64_t batch) {
  GpuPlanRequest request = request_for("gpt3-175b", "a100-80g", gpus, 2048, batch);
  request.space = SearchSpace::calculon;
  return request;
}

// Calculon's own enumeration of GPT-3 175B (`llm-optimal-execution -d`, snapshot 2024-02-22).
TEST(CalculonSpace, HasAsManyCandidatesAsCalculonEnumerates) {
  EXPECT_EQ(plan_training(calculon_request(8, 8))->counts.space, 362368);
  EXPECT_EQ(plan_training(calculon_request(64, 64))->counts.space, 3232128);
  EXPECT_EQ(plan_training(calculon_request(1024, 1536))->counts.space, 11698528);
}

TEST(CalculonSpace, SwitchesThatAreCountedAreThoseThatAreListed) {
  GpuPlanRequest request = calculon_request(16, 32);
  for (const CalculonGroup& group : calculon_groups(request))
    for (const TrainingLayout& layout : calculon_layouts(request, group))
      ASSERT_EQ(count_switches(layout), static_cast<int64_t>(calculon_switches(layout, false).size()))
          << to_string(layout);
}

// A GPT of a few layers on devices with so little memory that some candidates fit only when they offload.
GpuPlanRequest small_request(std::mt19937_64& random, int64_t layers, int64_t gpus, int64_t batch) {
  GpuPlanRequest request = calculon_request(gpus, batch);
  Layer layer = request.model.kinds.front();
  layer.mixer.heads = layer.mixer.kv_heads = 8, layer.mixer.head_dim = layer.mixer.v_head_dim = 128;
  layer.ffn.width = 4096;
  Blueprint model;
  model.name = "small", model.hidden = 1024, model.vocab = 51200, model.tied = true;
  for (int64_t i = 0; i < layers; ++i) model.append(layer);
  request.model = model, request.work.seq = 1024;
  request.cluster.device.memory_bytes = 3e9 + 1e8 * static_cast<double>(random() % 40);
  request.top = 3;
  return request;
}

// Seconds per sample of every candidate that is valid and fits, none left out.
std::vector<double> calculon_brute_force(const GpuPlanRequest& request) {
  CalculonModel model(request);
  std::vector<double> seconds;
  for (const CalculonGroup& group : calculon_groups(request))
    for (const TrainingLayout& layout : calculon_layouts(request, group))
      for (const CalculonSwitches& switches : calculon_switches(layout, false)) {
        CalculonCandidate one{layout, switches};
        if (!model.is_valid(one) || model.memory(one).device > request.cluster.device.memory_bytes) continue;
        seconds.push_back(model.step(one).seconds / model.samples(layout));
      }
  std::sort(seconds.begin(), seconds.end());
  return seconds;
}

TEST(CalculonSearch, PrunedOptimumIsThatOfTryingEverything) {
  std::mt19937_64 random(21);
  int64_t offloading = 0, fits = 0;
  for (int64_t layers : {3, 4, 6})
    for (int64_t gpus : {2, 4, 8})
      for (int round = 0; round < 3; ++round) {
        GpuPlanRequest request = small_request(random, layers, gpus, gpus * 2);
        std::vector<double> expected = calculon_brute_force(request);
        GpuPlan plan = *plan_training(request);
        ASSERT_EQ(plan.counts.evaluated + plan.counts.pruned(), plan.counts.space);
        ASSERT_EQ(plan.ranked.empty(), expected.empty());
        if (plan.ranked.empty()) continue;
        CalculonModel model(request);
        const GpuPrediction& best = plan.ranked.front();
        EXPECT_DOUBLE_EQ(best.step.seconds / model.samples(best.setup.layout), expected.front());
        EXPECT_NEAR(best.step.breakdown.total(), best.step.seconds, 1e-9 * best.step.seconds);
        ++fits, offloading += best.switches.find("offload") != std::string::npos ? 1 : 0;
      }
  EXPECT_GT(fits, 15);
  EXPECT_GT(offloading, 0);  // some fit only with the host's memory
}

// Each switch against the value that replaces it: what dominance stands on, and that none is ignored.
TEST(CalculonModel, SwitchesCostAndSaveWhatTheySay) {
  GpuPlanRequest request = calculon_request(64, 64);
  CalculonModel model(request);
  CalculonCandidate base{{.dp = 2, .tp = 8, .pp = 4, .virtual_stages = 2, .micro_batch = 2}, {}};
  base.switches.pp_outer = base.switches.dp_outer = true;
  ASSERT_TRUE(model.is_valid(base));
  double seconds = model.step(base).seconds;
  TrainingMemory memory = model.memory(base);
  auto with = [&](auto change) {
    CalculonCandidate other = base;
    change(other);
    return other;
  };
  auto slower = [&](auto change) { return model.step(with(change)).seconds - seconds; };
  auto weight = [&](auto change) { return model.memory(with(change)); };
  EXPECT_GT(slower([](auto& c) { c.switches.scattered_sends = false; }), 0);
  EXPECT_GT(slower([](auto& c) { c.switches.overlap_dp = false; }), 0);
  double ring = slower([](auto& c) { c.switches.tp_overlap = TpOverlap::ring; });
  double pipe = slower([](auto& c) { c.switches.tp_overlap = TpOverlap::pipe; });
  EXPECT_LT(ring, pipe);
  EXPECT_LT(pipe, 0);
  EXPECT_GT(slower([](auto& c) { c.switches.tp_outer = true; }), 0);
  // Inputs kept gathered: the same time, two activations of 7/8 a layer more.
  auto keep = [](auto& c) { c.layout.sequence_parallel = c.switches.keep_gathered = true; };
  auto regather = [](auto& c) { c.layout.sequence_parallel = true; };
  EXPECT_EQ(slower(keep), slower(regather));
  double more = weight(keep).activations - weight(regather).activations;
  double chunks = 2 * (4 - 1) + 4 + 1;  // of 12 layers each, in flight on the first stage
  EXPECT_NEAR(more, chunks * 12 * 2 * (2.0 * 2048 * 12288 * 2) * 7 / 8, 1);
  auto offload = [&](bool CalculonSwitches::*what) { return [what](auto& c) { c.switches.*what = true; }; };
  EXPECT_LT(weight(offload(&CalculonSwitches::offload_weights)).parameters, memory.parameters / 4);
  EXPECT_LT(weight(offload(&CalculonSwitches::offload_activations)).activations, memory.activations / 4);
  EXPECT_LT(weight(offload(&CalculonSwitches::offload_optimizer)).optimizer, memory.optimizer / 4);
  EXPECT_GE(slower(offload(&CalculonSwitches::offload_weights)), 0);
  EXPECT_GE(slower(offload(&CalculonSwitches::offload_activations)), 0);
  EXPECT_GE(slower(offload(&CalculonSwitches::offload_optimizer)), 0);
  request.cluster.device.host_bytes_per_s /= 100;
  CalculonModel slow(request);
  EXPECT_GT(slow.step(with(offload(&CalculonSwitches::offload_weights))).seconds, 2 * seconds);
  // Two axes on the innermost network must fit it together.
  EXPECT_FALSE(model.is_valid(with([](auto& c) { c.switches.pp_outer = false; })));
}

TEST(CalculonSearch, RefusesWhatItsSpaceDoesNotDescribe) {
  GpuPlanRequest request = request_for("deepseek-v3", "h100", 64, 4096, 64);
  request.space = SearchSpace::calculon;
  EXPECT_FALSE(plan_training(request).ok());
}

}  // namespace
}  // namespace tessera::plan
