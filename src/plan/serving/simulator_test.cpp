#include "plan/serving/simulator.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "core/file.h"
#include "plan/catalogue.h"
#include "plan/serving/closed_form.h"

namespace tessera::plan::serving {
namespace {

Deployment llama_8b(double budget = 8192) {
  Deployment d{.model = *find_model("llama-3.1-8b"),
               .device = *accelerator("h100"),
               .engine = {},
               .layout = {},
               .formats = {},
               .speculation = {}};
  d.engine.name = "test";
  d.engine.budget_tokens = budget;
  d.engine.admission_steps = 0;
  d.formats = formats_for(d.model, WeightFormat::fp8, WeightFormat::fp8, 1);
  return d;
}

void expect_near_share(double value, double reference, double share) {
  EXPECT_NEAR(value, reference, share * std::abs(reference));
}

// One user: no other request, so the closed form has no mean field in it.
TEST(Simulator, OneUserAgreesWithTheClosedFormWithinATenthOfAPercent) {
  Deployment d = llama_8b();
  Traffic traffic{.input_tokens = 2000, .output_tokens = 500, .concurrency = 1};
  Result<Estimate> closed = aggregated(d, traffic);
  Result<Simulation> events =
      simulate(d, draw_requests({.requests = 20, .input_tokens = 2000, .output_tokens = 500}), {.users = 1});
  ASSERT_TRUE(closed.ok() && events.ok());
  expect_near_share(events->ttft_s.mean, closed->ttft_s, 1e-3);
  expect_near_share(events->tpot_s.mean, closed->tpot_s, 1e-3);
}

// A static batch: all prompts in one step, then all decode together to the end.
TEST(Simulator, StaticBatchAgreesWithTheClosedFormWithinATenthOfAPercent) {
  Deployment d = llama_8b(32768);
  Traffic traffic{.arrival = Arrival::batch, .input_tokens = 400, .output_tokens = 600, .concurrency = 64};
  Result<Estimate> closed = aggregated(d, traffic);
  Result<Simulation> events =
      simulate(d, draw_requests({.requests = 64, .input_tokens = 400, .output_tokens = 600}), {.users = 64});
  ASSERT_TRUE(closed.ok() && events.ok());
  expect_near_share(events->ttft_s.mean, closed->ttft_s, 1e-3);
  expect_near_share(events->tpot_s.mean, closed->tpot_s, 1e-3);
}

// Many users with lengths of their own: the mean field against the events; its own approximations are within
// 5 %.
TEST(Simulator, ClosedLoopStaysNearTheMeanField) {
  Deployment d = llama_8b();
  Traffic traffic{.input_tokens = 900, .output_tokens = 450, .concurrency = 48, .requests_per_user = 40};
  Result<Estimate> closed = aggregated(d, traffic);
  Drawn drawn{.requests = 48 * 40, .input_tokens = 1000, .output_tokens = 500, .shortest = 0.8};
  Result<Simulation> events = simulate(d, draw_requests(drawn), {.users = 48});
  ASSERT_TRUE(closed.ok() && events.ok());
  expect_near_share(closed->tpot_s, events->tpot_s.mean, 0.05);
  expect_near_share(closed->tokens_per_s, events->tokens_per_s, 0.05);
}

TEST(Simulator, PercentilesRiseAndLoadAddsToThem) {
  Deployment d = llama_8b();
  double before = 0;
  for (double rate : {1.0, 8.0, 20.0}) {
    Result<Simulation> s = simulate(
        d, draw_requests(
               {.requests = 2000, .rate = rate, .input_tokens = 1000, .output_tokens = 200, .shortest = 0.5}));
    ASSERT_TRUE(s.ok());
    EXPECT_LE(s->ttft_s.p50, s->ttft_s.p90);
    EXPECT_LE(s->ttft_s.p90, s->ttft_s.p99);
    EXPECT_GT(s->ttft_s.mean, before);
    before = s->ttft_s.mean;
  }
}

// Every answer is complete whatever the pool, and a small pool costs preemptions.
TEST(Simulator, SmallCachePreemptsAndStillAnswersAll) {
  Deployment d = llama_8b();
  d.device.memory_bytes = 15e9;
  auto requests = draw_requests({.requests = 200, .input_tokens = 500, .output_tokens = 1500});
  Result<Simulation> s = simulate(d, requests, {.users = 100});
  ASSERT_TRUE(s.ok());
  EXPECT_GT(s->preemptions, 0);
  expect_near_share(s->tokens_per_s * s->seconds, 200 * 1500, 1e-9);
}

TEST(Percentiles, AreNearestRanks) {
  Percentiles p = percentiles({5, 1, 4, 2, 3, 6, 7, 8, 9, 10});
  EXPECT_EQ(p.p50, 5);
  EXPECT_EQ(p.p90, 9);
  EXPECT_EQ(p.p99, 10);
  EXPECT_EQ(p.mean, 5.5);
}

class TraceFile : public testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& text) {
    path = std::filesystem::temp_directory_path() / fmt::format("tessera-trace-{}-{}", ::getpid(), name);
    EXPECT_TRUE(write_file_atomically(path, text).ok());
    return path.string();
  }
  void TearDown() override { std::filesystem::remove(path); }
  std::filesystem::path path;
};

TEST_F(TraceFile, MooncakePromptsFindTheirPrefixInTheCache) {
  std::string line = R"({"timestamp": 1000, "input_length": 1100, "output_length": 9, "hash_ids": [1, 2, 3]})";
  std::string file = write("m.jsonl", line + "\n" + line + "\n");
  Result<std::vector<Request>> requests = read_trace(file, 100'000);
  ASSERT_TRUE(requests.ok());
  EXPECT_EQ((*requests)[0].cached, 0);
  EXPECT_EQ((*requests)[1].cached, 1099);  // the last token is computed
  EXPECT_EQ(read_trace(file)->at(1).cached, 0);
}

TEST_F(TraceFile, AzureTimesStartAtZeroAndBadLinesAreNamed) {
  std::string head = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
  std::string file = write("a.csv", head + "2023-11-16 18:17:03.5,10,3\n2023-11-16 18:17:05.0,20,4\n");
  Result<std::vector<Request>> requests = read_trace(file);
  ASSERT_TRUE(requests.ok());
  EXPECT_EQ((*requests)[0].arrival_s, 0);
  EXPECT_NEAR((*requests)[1].arrival_s, 1.5, 1e-9);
  Result<std::vector<Request>> bad = read_trace(write("a.csv", head + "yesterday,10,3\n"));
  EXPECT_NE(bad.error().message.find(":2:"), std::string::npos) << bad.error().message;
}

}  // namespace
}  // namespace tessera::plan::serving
