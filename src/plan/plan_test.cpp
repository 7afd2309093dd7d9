#include "plan/plan.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "plan/activations.h"
#include "plan/pipeline.h"
#include "plan/shapes.h"
#include "schedule/recurrence.h"

namespace tessera::plan {
namespace {

constexpr double kGiB = 1024.0 * 1024 * 1024;

ModelSpec small_moe() {
  ModelSpec spec;
  spec.architecture = Architecture::qwen3_moe;
  spec.layers = 4, spec.hidden = 256, spec.ffn = 512, spec.heads = 8, spec.kv_heads = 4, spec.head_dim = 32,
  spec.vocab = 4096, spec.qk_norm = true;
  spec.moe = {.experts = 8, .top_k = 2, .ffn = 256};
  return spec;
}

Work small_work() {
  Work work;
  work.seq = 256, work.micro_batch = 2, work.global_batch = 24;
  return work;
}

// A host with `cores` perfect cores.
Cluster ideal_host(int64_t cores) {
  Cluster cluster = *cluster_by_name("cpu");
  cluster.cores = cores;
  cluster.running = {1, cores};
  cluster.speed = {1, 1};
  if (cores == 1) cluster.running = {1}, cluster.speed = {1};
  return cluster;
}

// ---- models ----

TEST(Models, ParameterCountsArePublished) {
  EXPECT_NEAR(static_cast<double>(count_parameters(*load_model("llama-3.1-405b")).total), 405.853e9, 1e6);
  EXPECT_NEAR(static_cast<double>(count_parameters(*load_model("llama-3.1-70b")).total), 70.554e9, 1e6);
  EXPECT_NEAR(static_cast<double>(count_parameters(*load_model("llama-3.1-8b")).total), 8.030e9, 1e6);
  EXPECT_NEAR(static_cast<double>(count_parameters(*load_model("mixtral-8x7b")).total), 46.703e9, 1e6);
  EXPECT_NEAR(static_cast<double>(count_parameters(*load_model("mixtral-8x22b")).total), 140.63e9, 1e7);
  EXPECT_NEAR(static_cast<double>(count_parameters(*load_model("qwen3-30b-a3b")).total), 30.53e9, 1e7);
  EXPECT_NEAR(static_cast<double>(count_parameters(*load_model("qwen3-30b-a3b")).active), 3.35e9, 1e7);
  EXPECT_NEAR(static_cast<double>(count_parameters(*load_model("qwen3-235b-a22b")).total), 235.09e9, 1e7);
  EXPECT_NEAR(static_cast<double>(count_parameters(*load_model("qwen3-8b")).total), 8.19e9, 1e7);
  EXPECT_NEAR(static_cast<double>(count_parameters(*load_model("qwen3-32b")).total), 32.76e9, 1e7);
}

TEST(Models, TrainingFlopsOf405BArePublished) {
  EXPECT_NEAR(3 * forward_flops_per_token(*load_model("llama-3.1-405b"), 8192) / 1e12, 2.52398, 1e-3);
}

TEST(Models, UnknownNameOffersTheNearest) {
  auto model = load_model("mixtral-8x7");
  ASSERT_FALSE(model.ok());
  EXPECT_NE(model.error().message.find("did you mean 'mixtral-8x7b'"), std::string::npos);
}

// ---- shapes ----

// All ranks of one copy of the weights together hold each element once, replicated ones (norms, router) per
// rank.
double elements_by_inventory(const ModelSpec& model, const Layout& layout, int64_t stage) {
  double sum = 0;
  LayerRange range = stage_layers(model, layout, stage);
  for (const TensorSpec& tensor : inventory(model)) {
    bool here = tensor.layer >= range.first && tensor.layer < range.last;
    if (tensor.role == Role::embedding) here = stage == 0;
    if (tensor.role == Role::head || tensor.role == Role::final_norm) here = stage == layout.pp - 1;
    double part = tensor.split == Split::none ? 1 : 1.0 / static_cast<double>(layout.tp);
    if (tensor.expert >= 0) part /= static_cast<double>(layout.ep);
    if (here) sum += part * static_cast<double>(tensor.elements());
  }
  return sum;
}

TEST(Shapes, WeightsOfARankAreThoseOfTheInventory) {
  for (const char* name : {"llama-3.1-8b", "qwen3-8b", "mixtral-8x7b", "qwen3-30b-a3b"}) {
    ModelSpec model = *load_model(name);
    for (const char* text : {"dp=1", "tp=4", "pp=3,tp=2", "fsdp=4,ep=2,tp=2", "dp=2,fsdp=2,ep=4,pp=2"}) {
      Layout layout = *parse_layout(text);
      if (model.moe.experts == 0) layout.ep = 1;
      for (int64_t stage = 0; stage < layout.pp; ++stage) {
        WeightShapes weights = stage_weights(model, {}, layout, stage);
        EXPECT_DOUBLE_EQ(weights.dense + weights.experts, elements_by_inventory(model, layout, stage))
            << name << " " << text << " stage " << stage;
      }
    }
  }
}

// ---- memory ----

// ZeRO-3 with bf16 weights, float32 gradients and Adam: 18 bytes an element over 64 ranks (106.3 GiB for 405.8
// G).
TEST(Memory, StatesOf405BOver64RanksArePublished) {
  ModelSpec model = *load_model("llama-3.1-405b");
  Work work{.seq = 8192, .micro_batch = 1, .global_batch = 64, .precision = Precision::bf16};
  MemoryByClass memory = stage_memory(model, work, *parse_layout("fsdp=64"), 0);
  double accumulators = 4 * static_cast<double>(count_parameters(model).total) / 64;
  EXPECT_NEAR((memory.weights + memory.optimizer + accumulators) / kGiB, 106.3, 0.05);
}

// Counted by hand for a dense block, float32, tp=2: the tables have no tensor twice and none forgotten.
TEST(Memory, ActivationsOfADenseBlockCountedByHand) {
  ModelSpec model;
  model.layers = 2, model.hidden = 64, model.ffn = 128, model.heads = 4, model.kv_heads = 2,
  model.head_dim = 16, model.vocab = 128;
  Work work{.seq = 32, .micro_batch = 2, .global_batch = 8};
  Layout layout = *parse_layout("tp=2");
  double tokens = 64;
  double shard = tokens / 2 * (4 * 64 + 2);        // x, its norm, x after attention, its norm, two 1/rms
  double heads = tokens * (32 + 2 * 16 + 32 + 2);  // q, k, v, attention output, lse
  double gate_up = tokens * 2 * 64;
  EXPECT_DOUBLE_EQ(total_bytes(kept_by_attention(model, work, layout)), 4 * (shard + heads));
  EXPECT_DOUBLE_EQ(total_bytes(kept_by_ffn(model, work, layout, 0)), 4 * gate_up);
}

TEST(Memory, OneForwardOneBackwardHoldsFewerSlotsThanGpipe) {
  ModelSpec model = small_moe();
  Work work = small_work();
  Layout one = *parse_layout("pp=4"), all = *parse_layout("pp=4,schedule=gpipe");
  EXPECT_EQ(slots_in_flight(work, one, 0), 4);
  EXPECT_EQ(slots_in_flight(work, one, 3), 1);
  EXPECT_EQ(slots_in_flight(work, all, 0), 12);
  // Stage 1 has neither embedding nor head, whose gradients would move the peak: 3 slots against 12.
  EXPECT_DOUBLE_EQ(stage_memory(model, work, all, 1).activations,
                   4 * stage_memory(model, work, one, 1).activations);
}

TEST(Memory, RecomputationKeepsBlockInputsOnly) {
  ModelSpec model = *load_model("llama-3.1-8b");
  Work work{.seq = 4096, .micro_batch = 1, .global_batch = 32, .precision = Precision::bf16};
  // A stage in the middle: 8 layers, 3 slots in flight, no embedding and no head.
  MemoryByClass none = stage_memory(model, work, *parse_layout("pp=4"), 1);
  MemoryByClass full = stage_memory(model, work, *parse_layout("pp=4,recompute=full"), 1);
  double input = 4096.0 * 4096 * 2, batch = 4096.0 * 28;
  double block = (none.activations - 3 * batch) / 24;
  EXPECT_NEAR(full.activations, 23 * input + block + 3 * batch, 1);
}

// The bound: leaves of one unit and its neighbours aside, log2(leaves) + 2 copies of the rank's share.
TEST(Memory, ExactAccumulatorsStayWithinTheirBound) {
  Work work = small_work();
  work.numerics = Numerics::exact;
  ModelSpec model = small_moe();
  Layout one = *parse_layout("dp=1");
  WeightShapes weights = stage_weights(model, work, one, 0);
  double leaf =
      4 * std::max(embedding_weights(model, work, one),
                   layer_weights(model, work, one, 0).dense + layer_weights(model, work, one, 0).experts);
  EXPECT_LE(stage_memory(model, work, one, 0).gradients,
            4 * (weights.dense + weights.experts) * (std::log2(12) + 2) + leaf);
}

TEST(Memory, ShardingDividesStatesByTheReplicas) {
  ModelSpec model = small_moe();
  Work work = small_work();
  MemoryByClass one = stage_memory(model, work, *parse_layout("dp=1"), 0);
  MemoryByClass four = stage_memory(model, work, *parse_layout("fsdp=4"), 0);
  EXPECT_NEAR(four.weights / one.weights, 0.25, 0.01);
  EXPECT_NEAR(four.optimizer / one.optimizer, 0.25, 0.01);
  MemoryByClass expert = stage_memory(model, work, *parse_layout("fsdp=4,ep=4"), 0);
  EXPECT_NEAR(expert.weights / one.weights, 0.25, 0.01);
  EXPECT_LT(expert.gathered, four.gathered);  // experts need no gather when ep shards them
}

// ---- clusters ----

TEST(Cluster, EveryCatalogueEntryParsesAndRoundTrips) {
  for (const std::string& name : cluster_names()) {
    auto cluster = cluster_by_name(name);
    ASSERT_TRUE(cluster.ok()) << name << ": " << cluster.error().message;
    auto again = parse_cluster(to_toml(*cluster), name);
    ASSERT_TRUE(again.ok()) << name << ": " << again.error().message;
    EXPECT_EQ(to_toml(*again), to_toml(*cluster));
    EXPECT_FALSE(cluster->provenance.empty()) << name;
  }
}

TEST(Cluster, MeasuredFiguresRoundTrip) {
  Cluster cluster = ideal_host(2);
  cluster.gemm.push_back(
      {Product::tn, Precision::bf16, {64, 256}, {64}, {64, 128, 512}, {1e9, 2e9, 3e9, 4e9, 5e9, 6e9}});
  cluster.links.push_back({Collective::all_gather, 4, 4096, 1.5e-5});
  cluster.op_float32[Op::norm] = 2.5e-10;
  cluster.attention = {{Precision::float32, 32, 5e9, 4e9}};
  auto again = parse_cluster(to_toml(cluster), "test");
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(to_toml(*again), to_toml(cluster));
  EXPECT_EQ(again->gemm.at(0).flops_per_s, cluster.gemm.at(0).flops_per_s);
  EXPECT_EQ(again->links.at(0).ranks, 4);
}

TEST(Cluster, BadFilesNameTheKey) {
  std::string good = to_toml(*cluster_by_name("cpu"));
  auto fails_with = [&](const std::string& text, const std::string& expected) {
    auto cluster = parse_cluster(text, "c.toml");
    ASSERT_FALSE(cluster.ok()) << text;
    EXPECT_NE(cluster.error().message.find(expected), std::string::npos) << cluster.error().message;
  };
  fails_with("memory_byte = 3\n" + good, "did you mean 'memory_bytes'");
  fails_with("name = \"x\"\n[[tier]]\nname = \"a\"\nbytes_per_s = -1", "bytes_per_s");
  fails_with("name = \"x\"\nmemory_bytes = 1e9", "neither [[tier]] nor [[link]]");
  fails_with(good + "\n[op_float32]\nnorn = 1e-9", "did you mean 'norm'");
  fails_with(good + "\n[[gemm]]\nproduct=\"nt\"\nprecision=\"bf16\"\nm=[1]\nn=[1,2]\nk=[1]\nflops_per_s=[1]",
             "grid of 1 x 2 x 1");
  fails_with("name = ", "c.toml:1");
}

TEST(Cluster, GridIsExactAtItsPointsAndLogLinearBetween) {
  GemmGrid grid{Product::nt, Precision::float32, {16, 64}, {32}, {8, 32}, {1e9, 2e9, 4e9, 8e9}};
  EXPECT_NEAR(grid.rate(16, 32, 8), 1e9, 1);
  EXPECT_NEAR(grid.rate(64, 32, 32), 8e9, 1);
  EXPECT_NEAR(grid.rate(32, 100, 8), 2e9, 1);  // half way in log m; n held at the border
  EXPECT_NEAR(grid.rate(1000, 1, 16), std::sqrt(4e9 * 8e9), 1);
}

// nccl-test of an 8-GPU node: 1.083 ms by the formula, 1.090 ms measured (research/planner.md b4).
TEST(Collectives, RingAllReduceOfEightIsThePublishedFigure) {
  Cluster cluster = *cluster_by_name("h100");
  cluster.tiers = {{"nvlink", 8, 2.8e-6, 450e9}};
  double bytes = 256.0 * 1024 * 1024;
  double seconds = collective_s(cluster, Collective::all_to_all, 8, 1, bytes) +
                   collective_s(cluster, Collective::all_gather, 8, 1, bytes);
  EXPECT_NEAR(seconds * 1e3, 1.083, 1e-3);
}

TEST(Collectives, GroupThatLeavesTheNodeUsesTheNetwork) {
  Cluster cluster = *cluster_by_name("h100");
  EXPECT_EQ(cluster.tier_of(8, 1).name, "nvlink");
  EXPECT_EQ(cluster.tier_of(2, 8).name, "network");
}

TEST(Collectives, MeasuredPointsAreReturnedAndScaledToOtherSizes) {
  Cluster cluster = ideal_host(2);
  cluster.links = {{Collective::all_gather, 2, 1e3, 1e-5}, {Collective::all_gather, 2, 1e5, 1e-3}};
  EXPECT_NEAR(collective_s(cluster, Collective::all_gather, 2, 1, 1e3), 1e-5, 1e-12);
  EXPECT_NEAR(collective_s(cluster, Collective::all_gather, 2, 1, 1e4), 1e-4, 1e-12);
  EXPECT_NEAR(collective_s(cluster, Collective::all_gather, 2, 1, 1e6), 1e-2, 1e-9);
  EXPECT_NEAR(collective_s(cluster, Collective::all_gather, 4, 1, 1e3), 1.5e-5, 1e-12);  // 3/4 leaves, not 1/2
}

// ---- pipeline ----

// Bubble over ideal time is (p - 1) / m: .21875 for 8 stages and 32 slots (research/planner.md b5).
TEST(Pipeline, BubbleOfEvenStagesIsTheClosedForm) {
  for (PipelineSchedule kind : {PipelineSchedule::gpipe, PipelineSchedule::one_f_one_b}) {
    Schedule schedule = make_schedule(kind, 8, 32);
    std::vector<double> forward(8, 1.0), backward(8, 2.0);
    double seconds = shared_makespan(schedule, forward, backward, 0, 1, ideal_host(8));
    EXPECT_NEAR(seconds / (32 * 3) - 1, 0.21875, 1e-9);
  }
}

TEST(Pipeline, EqualsTheRecurrenceWithACorePerProcess) {
  std::vector<double> forward = {1, 1.5, 0.7, 1.2}, backward = {2, 2.5, 1.9, 2.2};
  for (PipelineSchedule kind : {PipelineSchedule::gpipe, PipelineSchedule::one_f_one_b}) {
    Schedule schedule = make_schedule(kind, 4, 9);
    EXPECT_NEAR(shared_makespan(schedule, forward, backward, 0.3, 2, ideal_host(8)),
                makespan(schedule, forward, backward, 0.3), 1e-9);
  }
}

TEST(Pipeline, OnOneCoreNothingIsIdleAndNothingIsFree) {
  Schedule schedule = make_schedule(PipelineSchedule::one_f_one_b, 4, 6);
  std::vector<double> forward = {1, 2, 3, 4}, backward = {2, 3, 4, 5};
  EXPECT_NEAR(shared_makespan(schedule, forward, backward, 0, 1, ideal_host(1)), 6 * 24, 1e-6);
  double two = shared_makespan(schedule, forward, backward, 0, 1, ideal_host(2));
  EXPECT_GE(two, 6 * 24 / 2.0 - 1e-9);
  EXPECT_GE(two, makespan(schedule, forward, backward, 0) - 1e-9);
}

// ---- step time ----

TEST(StepTime, BreakdownSumsToTheStep) {
  for (const char* name : {"cpu", "h100"})
    for (const char* text : {"dp=1", "fsdp=4,ep=2", "tp=2,pp=2", "dp=2,pp=2", "fsdp=2,tp=2,recompute=full"}) {
      StepTime t = step_time(small_moe(), small_work(), *parse_layout(text), *cluster_by_name(name));
      EXPECT_NEAR(t.seconds.total() + t.pp + t.bubble + t.optimizer, t.step_s, 1e-9 * t.step_s) << text;
      EXPECT_GE(t.bubble, -1e-12) << text;
    }
}

// With free communication and no overheads on one large product rate, a step takes FLOPs / rate.
TEST(StepTime, OfPureComputeIsFlopsOverRate) {
  ModelSpec model = *load_model("llama-3.1-8b");
  Cluster cluster = *cluster_by_name("h100");
  cluster.memory_bytes_per_s = 1e30;
  cluster.gemm_efficiency = cluster.attention_efficiency = 1;
  cluster.kernel_overhead_s = cluster.action_overhead_s = 0;
  for (Tier& tier : cluster.tiers) tier.latency_s = 0, tier.bytes_per_s = 1e30;
  Work work{.seq = 4096, .micro_batch = 1, .global_batch = 16, .precision = Precision::bf16};
  double flops = 3 * forward_flops_per_token(model, work.seq) * 16 * 4096;
  // Attention's backward runs five products where the model's FLOPs count four.
  double attention = 2.0 * 32 * 32 * 128 * 4096 * 16 * 4096;
  for (const char* text : {"dp=1", "fsdp=4", "tp=4", "dp=2,tp=2"}) {
    Layout layout = *parse_layout(text);
    double ideal = (flops + 0.5 * attention) / 989e12 / static_cast<double>(layout.processes());
    EXPECT_NEAR(step_time(model, work, layout, cluster).step_s / ideal, 1, 2e-3) << text;
  }
}

TEST(StepTime, RecomputationAddsOneForward) {
  ModelSpec model = small_moe();
  Cluster cluster = ideal_host(1);
  StageTime none = stage_time(model, small_work(), *parse_layout("dp=1"), cluster, 0);
  StageTime full = stage_time(model, small_work(), *parse_layout("recompute=full"), cluster, 0);
  EXPECT_GT(full.backward.compute, none.backward.compute + 0.3 * none.forward.compute);
  EXPECT_LT(full.backward.compute, none.backward.compute + none.forward.compute);  // head is not run again
}

TEST(StepTime, ExactModeIsNeverFasterThanFast) {
  Work exact = small_work();
  exact.numerics = Numerics::exact;
  for (const char* text : {"dp=1", "dp=4", "fsdp=4,ep=4", "tp=4", "pp=4"}) {
    Layout layout = *parse_layout(text);
    EXPECT_GE(step_time(small_moe(), exact, layout, ideal_host(4)).step_s,
              step_time(small_moe(), small_work(), layout, ideal_host(4)).step_s)
        << text;
  }
}

// ---- search ----

// Every tuple of degrees whose product is N, asked one by one.
std::set<std::string> valid_by_brute_force(const Request& request) {
  std::set<std::string> texts;
  int64_t n = request.processes;
  for (int64_t dp = 1; dp <= n; ++dp)
    for (int64_t fsdp = 1; fsdp <= n; ++fsdp)
      for (int64_t tp = 1; tp <= n; ++tp)
        for (int64_t pp = 1; pp <= n; ++pp)
          for (int64_t ep = 1; ep <= n; ++ep)
            for (auto schedule : {PipelineSchedule::gpipe, PipelineSchedule::one_f_one_b})
              for (auto recompute : {Recompute::none, Recompute::full}) {
                if (dp * fsdp * tp * pp != n || (pp == 1 && schedule == PipelineSchedule::gpipe)) continue;
                Layout layout;
                layout.dp = dp, layout.fsdp = fsdp, layout.tp = tp, layout.pp = pp, layout.ep = ep;
                layout.schedule = schedule, layout.recompute = recompute;
                if (validate(request.model, request.work, layout).ok()) texts.insert(to_string(layout));
              }
  return texts;
}

TEST(Search, FindsEveryValidLayoutOnceFastestFirst) {
  for (int64_t processes : {1, 2, 3, 4, 6, 8, 12}) {
    Request request{small_moe(), small_work(), *cluster_by_name("cpu"), processes};
    auto result = search(request);
    ASSERT_TRUE(result.ok());
    std::set<std::string> found;
    double last = 0;
    for (const Prediction& p : result->ranked) {
      EXPECT_TRUE(found.insert(to_string(p.layout)).second);
      EXPECT_GE(static_cast<float>(p.step_time_s), static_cast<float>(last));
      last = p.step_time_s;
    }
    EXPECT_EQ(found, valid_by_brute_force(request)) << processes;
    EXPECT_EQ(result->evaluated + result->pruned, result->space);
  }
}

TEST(Search, TooBigAModelNamesTheMemoryItNeeds) {
  Request request{*load_model("llama-3.1-405b"),
                  {.seq = 8192, .global_batch = 8, .precision = Precision::bf16},
                  *cluster_by_name("h100"),
                  8};
  request.free_blocks = true;
  auto result = search(request);
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result->ranked.empty());
  ASSERT_FALSE(result->infeasible.empty());
  EXPECT_EQ(result->infeasible[0].unit, "GiB");
  EXPECT_GT(result->infeasible[0].needed, result->infeasible[0].available);
}

TEST(Search, GivenLayoutMustUseTheProcesses) {
  Request request{small_moe(), small_work(), *cluster_by_name("cpu"), 4};
  request.layout = *parse_layout("tp=2");
  auto result = search(request);
  ASSERT_FALSE(result.ok());
  EXPECT_NE(result.error().message.find("uses 2 processes, but 4"), std::string::npos);
}

TEST(Search, FewerRanksGetALayoutOfEqualWork) {
  Work work = small_work();  // 12 micro-batches
  auto layouts = choose(small_moe(), work, *cluster_by_name("cpu"), 3);
  ASSERT_TRUE(layouts.ok());
  EXPECT_EQ(layouts->front().processes(), 3);
  for (const Layout& layout : *layouts) EXPECT_TRUE(validate(small_moe(), work, layout).ok());
  work.global_batch = 8;  // 4 micro-batches: 3 replicas cannot share them, and 4 layers make no 3 equal tp
  auto fewer = choose(small_moe(), work, *cluster_by_name("cpu"), 3);
  ASSERT_TRUE(fewer.ok());
  for (const Layout& layout : *fewer) EXPECT_TRUE(validate(small_moe(), work, layout).ok());
}

TEST(Report, JsonHasTheKeysOfTheDesign) {
  Request request{small_moe(), small_work(), *cluster_by_name("cpu"), 4};
  auto report = to_json(request, *search(request), 3);
  ASSERT_EQ(report["results"].size(), 3u);
  for (const char* key : {"layout", "step_time_s", "step_time_s_low", "step_time_s_high",
                          "tokens_per_s_per_gpu", "tflops_per_gpu", "mfu", "memory_gib", "fits", "goodput",
                          "time_to_train_h", "cost_usd", "energy_mwh", "co2_t", "breakdown", "provenance"})
    EXPECT_TRUE(report["results"][0].contains(key)) << key;
  for (const char* key : {"dp", "fsdp", "tp", "pp", "cp", "ep", "order", "schedule", "virtual_stages",
                          "micro_batch", "recompute", "precision"})
    EXPECT_TRUE(report["results"][0]["layout"].contains(key)) << key;
  for (const char* key : {"compute", "tp", "cp", "ep", "pp", "dp", "bubble", "optimizer", "host"})
    EXPECT_TRUE(report["results"][0]["breakdown"].contains(key)) << key;
  for (const char* key : {"space", "evaluated", "pruned", "seconds"})
    EXPECT_TRUE(report["search"].contains(key));
}

}  // namespace
}  // namespace tessera::plan
