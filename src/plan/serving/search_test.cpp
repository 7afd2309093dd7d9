#include "plan/serving/search.h"

#include "plan/serving/testing.h"

namespace tessera::plan::serving {
namespace {

TEST(Search, BestOfAllIsNoWorseThanAnySingleLayout) {
  SearchRequest request = ideal_request("llama-3.1-70b");
  request.limits.tpot_s = 0.02;
  Result<SearchOutcome> all = search(request);
  ASSERT_TRUE(all.ok());
  ASSERT_FALSE(all->ranked.empty());
  double best = all->ranked.front().estimate.tokens_per_s_gpu;
  for (int64_t tp : {1, 2, 4, 8}) {
    request.layout = WorkerLayout{.tp = tp};
    Result<SearchOutcome> one = search(request);
    ASSERT_TRUE(one.ok());
    if (!one->ranked.empty()) {
      EXPECT_LE(one->ranked.front().estimate.tokens_per_s_gpu, best * (1 + 1e-9));
    }
  }
  for (size_t i = 1; i < all->front.size(); ++i)
    EXPECT_GT(all->front[i].estimate.tokens_per_s_gpu, all->front[i - 1].estimate.tokens_per_s_gpu);
}

TEST(Search, ImpossibleObjectiveSaysHowFarOff) {
  SearchRequest request = ideal_request("llama-3.1-70b");
  request.limits.tpot_s = 1e-4;
  Result<SearchOutcome> outcome = search(request);
  ASSERT_TRUE(outcome.ok());
  EXPECT_TRUE(outcome->ranked.empty());
  ASSERT_EQ(outcome->infeasible.size(), 1u);
  EXPECT_EQ(outcome->infeasible[0].constraint, "time per output token");
  EXPECT_GT(outcome->infeasible[0].needed, outcome->infeasible[0].available);
}

TEST(Layout, UnknownKeyNamesTheNearest) {
  EXPECT_EQ(parse_worker_layout("tp=2,dp=4,ep=8")->moe_tp, 1);
  EXPECT_NE(parse_worker_layout("moetp=2").error().message.find("moe_tp"), std::string::npos);
  EXPECT_FALSE(parse_worker_layout("tp=zero").ok());
}

TEST(Layout, KeyGivenTwiceIsRefused) {
  EXPECT_NE(parse_worker_layout("tp=2,ep=2,tp=4").error().message.find("twice"), std::string::npos);
}

TEST(Search, ExpertsOfADenseModelAreRefused) {
  SearchRequest request = ideal_request("llama-3.1-70b");
  request.layout = WorkerLayout{.tp = 2, .moe_ep = 2};
  EXPECT_NE(search(request).error().message.find("experts"), std::string::npos);
}

TEST(Search, AimDecidesAndLimitsHold) {
  SearchRequest request = ideal_request("llama-3.1-70b");
  auto best = [&](Aim aim, Limits limits) {
    request.aim = aim, request.limits = limits;
    return search(request)->ranked.at(0);
  };
  Candidate rate = best(Aim::rate, {}), user = best(Aim::user, {}), ttft = best(Aim::ttft, {});
  EXPECT_GT(rate.estimate.tokens_per_s_gpu, user.estimate.tokens_per_s_gpu);
  EXPECT_GT(user.estimate.tokens_per_s_user, rate.estimate.tokens_per_s_user);
  EXPECT_LT(ttft.estimate.ttft_s, rate.estimate.ttft_s);
  // Tokens per second and GPU at a given speed for a user lie on the front between both ends.
  double speed = (rate.estimate.tokens_per_s_user + user.estimate.tokens_per_s_user) / 2;
  Candidate middle = best(Aim::rate, {.tpot_s = 1 / speed});
  EXPECT_GE(middle.estimate.tokens_per_s_user, speed);
  EXPECT_LT(middle.estimate.tokens_per_s_gpu, rate.estimate.tokens_per_s_gpu);
  EXPECT_GT(middle.estimate.tokens_per_s_gpu, user.estimate.tokens_per_s_gpu);
  Candidate cheap = best(Aim::user, {.least_rate = middle.estimate.tokens_per_s_gpu});
  EXPECT_GE(cheap.estimate.tokens_per_s_user, middle.estimate.tokens_per_s_user);
}

TEST(Search, LimitsThatExcludeEachOtherSayByHowMuch) {
  SearchRequest request = ideal_request("llama-3.1-70b");
  Candidate rate = search(request)->ranked.at(0);
  request.aim = Aim::user;
  Candidate user = search(request)->ranked.at(0);
  request.limits = {.tpot_s = user.estimate.tpot_s, .least_rate = rate.estimate.tokens_per_s_gpu};
  Result<SearchOutcome> none = search(request);
  ASSERT_TRUE(none.ok() && none->ranked.empty());
  ASSERT_EQ(none->infeasible.size(), 2u);
  EXPECT_GT(none->infeasible[0].needed, none->infeasible[0].available);
}

// A limit on the 99th percentile is a harder one than on the mean: it is kept by the simulated requests, at a
// lower load.
TEST(Search, LimitsOnAPercentileAreKeptBySimulation) {
  SearchRequest request = ideal_request("llama-3.1-8b", 2);
  request.finalists = 2;
  request.limits = {.ttft_s = 0.5, .tpot_s = 0.02};
  Candidate mean = search(request)->ranked.at(0);
  request.percentile = &Percentiles::p99;
  Result<SearchOutcome> outcome = search(request);
  ASSERT_TRUE(outcome.ok() && !outcome->ranked.empty());
  for (const Candidate& c : outcome->ranked) {
    ASSERT_TRUE(c.simulation);
    EXPECT_LE(c.simulation->ttft_s.p99, 0.5);
    EXPECT_LE(c.simulation->tpot_s.p99, 0.02);
  }
  EXPECT_LT(outcome->ranked[0].concurrency, mean.concurrency);
}

TEST(Search, TraceIsJudgedByItsOwnRequests) {
  SearchRequest request = ideal_request("llama-3.1-8b", 1);
  request.finalists = 1;
  request.trace = draw_requests({.requests = 300, .rate = 5, .input_tokens = 2000, .output_tokens = 100});
  request.traffic = {
      .arrival = Arrival::open, .input_tokens = 2000, .output_tokens = 100, .concurrency = 0, .rate = 5};
  request.limits.ttft_s = 0.5;
  EXPECT_EQ(search(request)->ranked.at(0).simulation->requests, 300);
  for (Request& r : request.trace) r.arrival_s = std::floor(r.arrival_s / 20) * 20;  // in bursts of 100
  Result<SearchOutcome> bursts = search(request);
  ASSERT_TRUE(bursts.ok());
  EXPECT_TRUE(bursts->ranked.empty());
  EXPECT_NE(bursts->infeasible.at(0).constraint.find("simulated"), std::string::npos);
}

TEST(Energy, PowerFollowsWhatTheDeviceDoes) {
  Accelerator device = ideal_h100();
  ServingCost idle = serving_cost(device, {}, 100), reads = serving_cost(device, {.streaming = 1}, 100),
              multiplies = serving_cost(device, {.multiplying = 1}, 100);
  EXPECT_NEAR(idle.watts, (80 + 350) * device.power.pue, 1e-9);
  EXPECT_NEAR(multiplies.watts, (700 + 350) * device.power.pue, 1e-9);
  EXPECT_GT(reads.watts, idle.watts);
  EXPECT_LT(reads.watts, multiplies.watts);
  EXPECT_NEAR(multiplies.joules, multiplies.watts / 100, 1e-9);
  EXPECT_NEAR(multiplies.usd, 2.0 / 3600 / 100, 1e-12);
}

TEST(Energy, SitesChangeCostAndEnergy) {
  Accelerator here = *accelerator("h100"), there = *accelerator("h100", "pue=1.5,price=1");
  EXPECT_NEAR(serving_cost(there, {}, 1).watts / serving_cost(here, {}, 1).watts, 1.5 / here.power.pue, 1e-9);
  EXPECT_NEAR(serving_cost(there, {}, 1).usd, 1.0 / 3600, 1e-12);
  EXPECT_FALSE(accelerator("h100", "pues=2").ok());
}

// Prompts keep the multipliers busy, single answers wait for memory.
TEST(Energy, LongPromptsDrawMoreThanLongAnswers) {
  Deployment d = on_ideal("llama-3.1-8b", {}, WeightFormat::fp8);
  Traffic prompts{.input_tokens = 8000, .output_tokens = 8, .concurrency = 16},
      answers{.input_tokens = 8, .output_tokens = 8000, .concurrency = 1};
  Activity busy = aggregated(d, prompts)->activity, waiting = aggregated(d, answers)->activity;
  EXPECT_GT(busy.multiplying, 0.8);
  EXPECT_LT(waiting.multiplying, 0.1);
  EXPECT_GT(waiting.streaming, 0.8);
}

}  // namespace
}  // namespace tessera::plan::serving
