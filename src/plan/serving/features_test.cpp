// What each technique of serving is worth, in direction and size, on a device and an engine without losses:
// there the size follows from bytes and FLOPs.
#include "plan/serving/testing.h"

namespace tessera::plan::serving {
namespace {

// Three quarters of a prompt in the cache leave a quarter of its products.
TEST(Features, CachedPrefixIsNotComputed) {
  Deployment d = on_ideal("llama-3.1-8b", {}, WeightFormat::fp8);
  Traffic traffic{.input_tokens = 4096, .output_tokens = 64};
  double whole = aggregated(d, traffic)->ttft_s;
  traffic.cached_prefix = 3072;
  EXPECT_NEAR(aggregated(d, traffic)->ttft_s / whole, 0.25, 0.06);
}

// A single answer waits for weights: their bytes are its time.
TEST(Features, NarrowWeightsMakeSingleAnswersFaster) {
  auto tpot = [](WeightFormat format) {
    return aggregated(on_ideal("llama-3.1-8b", {}, format), {.input_tokens = 16, .output_tokens = 64})->tpot_s;
  };
  double bf16 = tpot(WeightFormat::bf16);
  EXPECT_NEAR(tpot(WeightFormat::fp8) / bf16, 0.54, 0.02);  // the head stays in 16 bits
  EXPECT_NEAR(tpot(WeightFormat::int4) / bf16, 0.31, 0.04);
}

TEST(Features, NarrowCacheHoldsTwiceTheSequences) {
  Deployment d = on_ideal("llama-3.1-70b", {.tp = 4}, WeightFormat::fp8);
  double narrow = max_sequences(d, 8192);
  d.formats.kv_bytes = 2;
  EXPECT_NEAR(narrow / max_sequences(d, 8192), 2, 0.05);
}

// Drafts cost little while steps wait for weights, and much where the multipliers are full (Leviathan et al.).
TEST(Features, DraftsHelpFewUsersAndNotMany) {
  auto gain = [](double users) {
    Deployment d = on_ideal("llama-3.1-8b", {}, WeightFormat::bf16);
    Traffic traffic{.arrival = Arrival::batch, .input_tokens = 16, .output_tokens = 256, .concurrency = users};
    double plain = aggregated(d, traffic)->tpot_s;
    d.speculation = {.depth = 3, .acceptance = 0.75};
    return plain / aggregated(d, traffic)->tpot_s;
  };
  double most = Speculation{.depth = 3, .acceptance = 0.75}.tokens_per_step();
  EXPECT_GT(gain(1), 0.65 * most);
  EXPECT_LT(gain(1), most);
  EXPECT_LT(gain(2048), 1);
}

TEST(Features, SimulatedDraftsGiveTheTokensPerStepOfTheClosedForm) {
  Deployment d = on_ideal("llama-3.1-8b", {}, WeightFormat::bf16);
  d.speculation = {.depth = 3, .acceptance = 0.75};
  Result<Estimate> closed = aggregated(d, {.input_tokens = 512, .output_tokens = 2000, .concurrency = 1});
  Result<Simulation> events =
      simulate(d, draw_requests({.requests = 5, .input_tokens = 512, .output_tokens = 2000}), {.users = 1});
  ASSERT_TRUE(closed.ok() && events.ok());
  EXPECT_NEAR(events->tpot_s.mean, closed->tpot_s, 2e-3 * closed->tpot_s);
}

// Batches that wait for their longest answer against requests that take each other's place: lengths of 10 to
// 100 % of the longest are 55 % of it in the mean.
TEST(Features, InFlightBatchingFillsTheHolesOfBatches) {
  Deployment d = on_ideal("llama-3.1-8b", {}, WeightFormat::fp8);
  auto requests = draw_requests({.requests = 1280, .input_tokens = 64, .output_tokens = 1000, .shortest = 0.1});
  for (Request& request : requests) request.arrival_s = 0;
  double batches = 0;
  for (size_t first = 0; first < requests.size(); first += 64)
    batches += simulate(d, {requests.begin() + static_cast<ptrdiff_t>(first),
                            requests.begin() + static_cast<ptrdiff_t>(first + 64)})
                   ->seconds;
  double in_flight = simulate(d, requests, {.users = 64})->seconds;
  EXPECT_NEAR(batches / in_flight, 1 / 0.55, 0.3);
}

// Published (Mooncake): 8,192 tokens of Qwen3-8B are 1.13 GiB, 147,456 bytes a token.
TEST(Features, TransferOfACacheIsItsBytesOverTheNetwork) {
  Deployment d = on_ideal("qwen3-8b", {});
  d.device.nic_bytes_per_s = 50e9;
  EXPECT_NEAR(transfer_seconds(d, 8192), 8192 * 147456 / 50e9, 1e-6);
  Deployment wide = on_ideal("qwen3-8b", {.tp = 8});
  wide.device.nic_bytes_per_s = 50e9;
  EXPECT_NEAR(transfer_seconds(wide, 8192), 8192 * 147456 / 8 / 50e9, 1e-6);
}

// Attention-DP does not repeat the latents of MLA, and experts on more ranks leave room and read fewer weights
// each: what wide expert parallelism is for.
TEST(Features, WideExpertParallelismServesMorePerDevice) {
  Deployment tensor = on_ideal("deepseek-v3", {.tp = 8, .moe_tp = 1, .moe_ep = 8}, WeightFormat::fp8);
  tensor.device.memory_bytes = 141e9;
  Deployment data = tensor;
  data.layout = {.dp = 8, .moe_tp = 1, .moe_ep = 8};
  EXPECT_GT(8 * max_sequences(data, 4096),
            4.5 * max_sequences(tensor, 4096));  // 8, less repeated attention weights
  auto per_device = [&](int64_t ranks) {
    Deployment d = tensor;
    d.layout = {.dp = ranks, .moe_tp = 1, .moe_ep = ranks};
    Traffic traffic{.arrival = Arrival::batch,
                    .input_tokens = 16,
                    .output_tokens = 256,
                    .concurrency = 32 * static_cast<double>(ranks)};
    return 32 / aggregated(d, traffic)->tpot_s;
  };
  EXPECT_GT(per_device(64) / per_device(8), 1.5);
}

// Small chunks spare answers, large ones the first token (Agrawal et al. 2024).
TEST(Features, ChunksTradeTheFirstTokenForTheSlowestAnswers) {
  Deployment d = on_ideal("llama-3.1-8b", {}, WeightFormat::fp8);
  auto requests =
      draw_requests({.requests = 400, .rate = 6, .input_tokens = 8000, .output_tokens = 200, .shortest = 0.5});
  d.engine.max_running = 128;
  d.engine.budget_tokens = 512;
  Simulation small = *simulate(d, requests);
  d.engine.budget_tokens = 16384;
  Simulation large = *simulate(d, requests);
  EXPECT_LE(large.ttft_s.p50, small.ttft_s.p50);
  d.engine.prefill = PrefillPolicy::first;
  Simulation alone = *simulate(d, requests);
  EXPECT_LE(alone.ttft_s.mean, large.ttft_s.mean * 1.01);
  EXPECT_GT(alone.tpot_s.p99, small.tpot_s.p50);
}

TEST(Features, ReservedAnswersAreNeverPreempted) {
  Deployment d = on_ideal("llama-3.1-8b", {}, WeightFormat::fp8);
  d.device.memory_bytes = 14e9;
  auto requests = draw_requests({.requests = 100, .input_tokens = 500, .output_tokens = 1500});
  Simulation shared = *simulate(d, requests, {.users = 60});
  d.engine.reserves_output = true;
  Simulation reserved = *simulate(d, requests, {.users = 60});
  EXPECT_GT(shared.preemptions, 0);
  EXPECT_EQ(reserved.preemptions, 0);
  EXPECT_LT(reserved.mean_running, shared.mean_running);
}

}  // namespace
}  // namespace tessera::plan::serving
