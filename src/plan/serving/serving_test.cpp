#include <gtest/gtest.h>

#include <cmath>

#include "plan/serving/expert_load.h"
#include "plan/serving/testing.h"

namespace tessera::plan::serving {
namespace {

// Floor of decoding Llama-3-70B in bf16 on 8 H100 at 4k tokens: all weights but the input embedding and all
// keys and values are read once, at 3.35 TB/s.
TEST(StepTime, DecodeFloorOfLlama70BIsTheReadingOfWeightsAndCache) {
  StepModel model(on_ideal("llama-3.1-70b", {.tp = 8}));
  for (auto [batch, ms] : {std::pair{1.0, 5.24}, {16.0, 5.99}, {64.0, 8.39}})
    EXPECT_NEAR(1000 * model.seconds({.decode_sequences = batch, .decode_context = 4096}), ms, 0.004 * ms);
}

TEST(StepTime, PrefillFloorIsTwoFlopsPerParameterAndToken) {
  StepModel model(on_ideal("llama-3.1-70b", {.tp = 8}));
  double tokens = 4096, parameters = 70.554e9 - 2 * 128256.0 * 8192;
  double attention = 80 * tokens * 4 * 8192 * tokens / 2;
  double floor = (2 * parameters * tokens + attention) / (8 * 989e12);
  EXPECT_NEAR(model.seconds({.prefill_tokens = tokens, .prefill_span = tokens / 2}), floor, 0.01 * floor);
}

// Distinct experts E (1 - (1 - k/E)^n) under uniform routing, and the fullest of 8 ranks at 8,192 tokens.
// A token of top 2 meets 8 (1 - (7/8)^2) of 8 ranks with whole experts, and all 8 among which each is split.
TEST(StepTime, SplitExpertsSendATokenToEveryRankThatHoldsAPart) {
  StepLoad load{.decode_sequences = 64, .decode_context = 1000};
  auto exchange = [&](WorkerLayout layout) {
    return StepModel(on_ideal("mixtral-8x7b", layout)).breakdown(load).ep;
  };
  double whole = exchange({.dp = 8, .moe_ep = 8}), split = exchange({.dp = 8, .moe_tp = 8});
  EXPECT_NEAR(split / whole, 8 / (8 * (1 - std::pow(7.0 / 8, 2))), 1e-9);
  // Two hosts of 8: half of 16 ranks are remote, and the network carries a row once for the ranks of a group.
  double link = ideal_h100().link_bytes_per_s, network = ideal_h100().nic_bytes_per_s;
  double row = 3 * 4096 * 64.0 * 32;
  double meets = 8 * (1 - std::pow(7.0 / 8, 2));
  EXPECT_NEAR(exchange({.dp = 16, .moe_tp = 2, .moe_ep = 8}),
              std::max(row * meets / 2 / network, row * meets * 1.5 / link), 1e-9);
}

TEST(ExpertLoad, UniformRoutingTouchesTheExpectedExperts) {
  ExpertLoad load(256, 8, 1, 0);
  for (auto [tokens, touched] : {std::pair{1.0, 8.0}, {8.0, 57.4}, {32.0, 163.3}, {128.0, 251.6}})
    EXPECT_NEAR(load.touched_per_rank(tokens), touched, 0.1);
  EXPECT_NEAR(ExpertLoad(256, 8, 8, 0).imbalance(8192), 1.021, 0.002);
}

TEST(ExpertLoad, SkewTouchesFewerExpertsAndLoadsOneRankMore) {
  ExpertLoad even(256, 8, 8, 0), skewed(256, 8, 8, 0.8);
  EXPECT_LT(skewed.touched_per_rank(32), even.touched_per_rank(32));
  EXPECT_GT(skewed.imbalance(1e5), even.imbalance(1e5));
}

TEST(Speculation, TokensPerStepFollowTheGeometricSum) {
  EXPECT_NEAR((Speculation{.depth = 4, .acceptance = 0.8}).tokens_per_step(), 3.3616, 1e-4);
  EXPECT_EQ(Speculation{}.tokens_per_step(), 1);
}

// Published cache sizes per token in bf16: 327,680 bytes (Llama 70B), 70,272 (DeepSeek-V3); beyond its 8 key
// and value heads tp repeats them, and an MLA latent is held by every tp rank.
TEST(Memory, CachePerTokenIsAsPublishedAndRepeatsBeyondTheHeads) {
  EXPECT_NEAR(sequence_bytes(on_ideal("llama-3.1-70b", {}), 1000), 327'680'000, 1);
  EXPECT_NEAR(sequence_bytes(on_ideal("llama-3.1-70b", {.tp = 8}), 1000), 40'960'000, 1);
  EXPECT_NEAR(sequence_bytes(on_ideal("llama-3.1-70b", {.tp = 16}), 1000), 40'960'000, 1);
  EXPECT_NEAR(sequence_bytes(on_ideal("deepseek-v3", {.tp = 8, .moe_tp = 8}), 1000), 70'272'000, 1);
}

TEST(Memory, WeightsOfAllRanksAreTheParameters) {
  for (int64_t tp : {1, 2, 8}) {
    double bytes = static_cast<double>(tp) * rank_weight_bytes(on_ideal("llama-3.1-70b", {.tp = tp}));
    EXPECT_NEAR(bytes, 2 * 70.554e9, 0.002 * 2 * 70.554e9);
  }
}

TEST(Aggregated, SixteenBit70BIsRefusedOnOne80GbDeviceAndSaysWhy) {
  Result<Estimate> e = aggregated(on_ideal("llama-3.1-70b", {}), {});
  ASSERT_FALSE(e.ok());
  EXPECT_EQ(e.error().code, ErrorCode::resource_exhausted);
  EXPECT_NE(e.error().message.find("141"), std::string::npos) << e.error().message;
}

// Little's law in a closed loop: users = throughput * (TTFT + decoding) per request, waiting or not.
TEST(Aggregated, UsersEqualThroughputTimesResidence) {
  Deployment d = on_ideal("llama-3.1-8b", {}, WeightFormat::fp8);
  for (double users : {8.0, 64.0, 4096.0}) {
    Traffic traffic{.concurrency = users, .requests_per_user = 1e6};
    Result<Estimate> e = aggregated(d, traffic);
    ASSERT_TRUE(e.ok());
    double residence = e->ttft_s + e->tpot_s * (traffic.output_tokens - 1);
    EXPECT_NEAR(e->tokens_per_s / traffic.output_tokens * residence, users, 0.01 * users);
  }
}

TEST(Aggregated, MoreUsersThanTheCacheHoldsWaitAndAreFlagged) {
  Deployment d = on_ideal("llama-3.1-70b", {.tp = 2}, WeightFormat::fp8);
  double limit = max_sequences(d, 1024 + 512);
  Result<Estimate> half = aggregated(d, {.concurrency = limit / 2}),
                   twice = aggregated(d, {.concurrency = 2 * limit}),
                   flood = aggregated(d, {.arrival = Arrival::flood});
  ASSERT_TRUE(half.ok() && twice.ok() && flood.ok());
  EXPECT_FALSE(half->saturated);
  EXPECT_TRUE(twice->saturated);
  EXPECT_GT(twice->ttft_s, half->ttft_s * 5);
  EXPECT_NEAR(twice->tokens_per_s, flood->tokens_per_s, 0.02 * flood->tokens_per_s);
}

TEST(Disaggregated, PromptsNoLongerDelayAnswers) {
  Deployment d = on_ideal("llama-3.1-8b", {}, WeightFormat::fp8);
  Traffic traffic{.input_tokens = 4096, .output_tokens = 256, .concurrency = 32};
  Result<Estimate> together = aggregated(d, traffic, 2),
                   apart = disaggregated({.prefill = d, .decode = d}, traffic);
  ASSERT_TRUE(together.ok() && apart.ok());
  EXPECT_LT(apart->tpot_s, together->tpot_s);
  EXPECT_EQ(apart->gpus, 2);
  // A closed loop cannot give more than its prefill worker takes in.
  Result<Estimate> flooded = disaggregated({.prefill = d, .decode = d},
                                           {.input_tokens = 8192, .output_tokens = 64, .concurrency = 2000});
  ASSERT_TRUE(flooded.ok());
  EXPECT_TRUE(flooded->saturated);
}

}  // namespace
}  // namespace tessera::plan::serving
