#include "plan/serving/simulator.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "batching/scheduler.h"
#include "core/file.h"
#include "plan/catalogue.h"
#include "plan/serving/closed_form.h"
#include "plan/serving/decode_times.h"

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

// Equal requests that start together stay together: all prompts in one step, then all decode, wave after wave.
TEST(Simulator, ConstantConcurrencyAgreesWithTheClosedFormWithinATenthOfAPercent) {
  Deployment d = llama_8b(32768);
  for (int64_t users : {1, 8, 64}) {
    Traffic traffic{.arrival = Arrival::batch,
                    .input_tokens = 400,
                    .output_tokens = 600,
                    .concurrency = static_cast<double>(users)};
    Result<Estimate> closed = aggregated(d, traffic);
    Result<Simulation> events = simulate(
        d, draw_requests({.requests = 4 * users, .input_tokens = 400, .output_tokens = 600}), {.users = users});
    ASSERT_TRUE(closed.ok() && events.ok());
    expect_near_share(events->ttft_s.mean, closed->ttft_s, 1e-3);
    expect_near_share(events->tpot_s.mean, closed->tpot_s, 1e-3);
    expect_near_share(events->tokens_per_s, closed->tokens_per_s, 1e-3);
  }
}

TEST(Simulator, WorkersOfOnePhaseAgreeWithTheClosedFormWithinATenthOfAPercent) {
  Deployment d = llama_8b();
  Disaggregated pair{.prefill = d, .decode = d, .prefill_workers = 2, .decode_workers = 1};
  Traffic traffic{.input_tokens = 20000, .output_tokens = 500, .concurrency = 1, .requests_per_user = 1e9};
  Result<Estimate> closed = disaggregated(pair, traffic);
  Result<Simulation> events = simulate(
      pair, draw_requests({.requests = 20, .input_tokens = 20000, .output_tokens = 500}), {.users = 1});
  ASSERT_TRUE(closed.ok() && events.ok());
  EXPECT_GT(closed->transfer_s, 0.02 * closed->ttft_s);
  expect_near_share(events->ttft_s.mean, closed->ttft_s, 1e-3);
  expect_near_share(events->tpot_s.mean, closed->tpot_s, 1e-3);
  expect_near_share(events->tokens_per_s_gpu, closed->tokens_per_s_gpu, 1e-3);
}

// Prompts hold nobody up, and more workers for prompts shorten the queue for them.
TEST(Simulator, WorkersOfOnePhaseKeepAnswersSteady) {
  Deployment d = llama_8b();
  auto requests =
      draw_requests({.requests = 600, .rate = 10, .input_tokens = 6000, .output_tokens = 200, .shortest = 0.5});
  auto apart = [&](double prefill) {
    return *simulate({.prefill = d, .decode = d, .prefill_workers = prefill}, requests);
  };
  Simulation together = *simulate(d, requests), one = apart(1), two = apart(2);
  EXPECT_LT(one.tpot_s.p99, 0.5 * together.tpot_s.p99);
  EXPECT_LT(two.ttft_s.p90, one.ttft_s.p90);
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

// The simulation without any of its shortcuts: the server's own scheduler, each step priced by itself.
class Walk {
 public:
  Walk(const Deployment& d, std::vector<Request> requests, size_t users)
      : model_(d), scheduler_(scheduling(d)), requests_(std::move(requests)), users_(users) {
    answered_.resize(requests_.size());
    first_s_ = done_s_ = std::vector<double>(requests_.size());
    for (size_t i = 0; users_ > 0 && i < requests_.size(); ++i) requests_[i].arrival_s = i < users_ ? 0 : 1e300;
  }

  Simulation run() {
    while (done_ < requests_.size()) {
      while (sent_ < requests_.size() && requests_[sent_].arrival_s <= now_) submit(sent_++);
      if (scheduler_.idle())
        now_ = requests_[sent_].arrival_s;
      else
        step();
    }
    std::vector<double> ttft, tpot;
    for (size_t i = 0; i < requests_.size(); ++i) {
      ttft.push_back(first_s_[i] - requests_[i].arrival_s);
      if (answered_[i] > 1) tpot.push_back((done_s_[i] - first_s_[i]) / static_cast<double>(answered_[i] - 1));
    }
    Simulation s{.ttft_s = percentiles(ttft), .tpot_s = percentiles(tpot), .seconds = now_};
    s.steps = steps_, s.preemptions = preemptions_;
    return s;
  }

 private:
  static batching::SchedulerOptions scheduling(const Deployment& d) {
    auto running = static_cast<int64_t>(d.engine.max_running),
         budget = static_cast<int64_t>(d.engine.budget_tokens);
    return {.blocks = static_cast<int64_t>(rank_memory(d).cache / (sequence_bytes(d, 8192) / 8192 * 16)),
            .max_batch_tokens = budget,
            .max_running = std::min(running, budget),
            .max_waiting = 1 << 20};
  }
  void submit(size_t i) {
    ASSERT_TRUE(
        scheduler_
            .submit(static_cast<int64_t>(i), requests_[i].prompt, requests_[i].prompt + requests_[i].answer)
            .ok());
  }
  void step() {
    batching::Step step = scheduler_.next_step();
    StepLoad load;
    double pairs = 0, context = 0;
    for (const batching::StepEntry& entry : step.entries) {
      auto first = static_cast<double>(entry.first), count = static_cast<double>(entry.count);
      if (entry.count == 1 && entry.first > 0)
        load.decode_sequences += 1, context += first;
      else
        load.prefill_tokens += count, load.prefill_sequences += entry.samples,
            pairs += count * (first + count / 2);
    }
    if (load.decode_sequences > 0) load.decode_context = context / load.decode_sequences;
    if (load.prefill_tokens > 0) load.prefill_span = pairs / load.prefill_tokens;
    now_ += model_.seconds(load);
    ++steps_;
    preemptions_ += std::ssize(step.preempted);
    for (const batching::StepEntry& entry : step.entries)
      if (entry.samples) sample(static_cast<size_t>(entry.id));
  }
  void sample(size_t i) {
    if (answered_[i]++ == 0) first_s_[i] = now_;
    if (answered_[i] < requests_[i].answer) return scheduler_.append_token(static_cast<int64_t>(i));
    scheduler_.finish(static_cast<int64_t>(i));
    done_s_[i] = now_;
    if (users_ > 0 && users_ + done_ < requests_.size()) requests_[users_ + done_].arrival_s = now_;
    ++done_;
  }

  StepModel model_;
  batching::Scheduler scheduler_;
  std::vector<Request> requests_;
  std::vector<int64_t> answered_;
  std::vector<double> first_s_, done_s_;
  size_t users_, sent_ = 0, done_ = 0;
  double now_ = 0;
  int64_t steps_ = 0, preemptions_ = 0;
};

void expect_equal(const Simulation& events, const Simulation& walked) {
  EXPECT_EQ(events.steps, walked.steps);
  EXPECT_EQ(events.preemptions, walked.preemptions);
  expect_near_share(events.seconds, walked.seconds, 1e-9);
  for (auto times : {&Simulation::ttft_s, &Simulation::tpot_s})
    for (auto figure : {&Percentiles::mean, &Percentiles::p50, &Percentiles::p99})
      expect_near_share(events.*times.*figure, walked.*times.*figure, 1e-9);
}

// Nothing in them is approximate: equal to the last bits of the sums of times.
TEST(Simulator, EventsEqualASimulationStepByStep) {
  for (const char* model : {"llama-3.1-8b", "gpt-oss-20b", "deepseek-v3.2", "nemotron-3-nano-30b-a3b"}) {
    SCOPED_TRACE(model);
    Result<Blueprint> blueprint = find_model(model);
    ASSERT_TRUE(blueprint.ok());
    Deployment d = llama_8b(2048);
    d.engine.prompt_s = 0;
    d.model = *blueprint;
    d.formats = formats_for(d.model, WeightFormat::fp8, WeightFormat::fp8, 1);
    for (double room : {4e9, 40e9}) {
      d.device.memory_bytes = rank_weight_bytes(d) / 0.9 + d.engine.workspace_bytes + room;
      auto closed =
          draw_requests({.requests = 300, .input_tokens = 3000, .output_tokens = 900, .shortest = 0.1});
      expect_equal(*simulate(d, closed, {.users = 70}), Walk(d, closed, 70).run());
      auto open = draw_requests(
          {.requests = 300, .rate = 9, .input_tokens = 3000, .output_tokens = 900, .shortest = 0.1});
      expect_equal(*simulate(d, open), Walk(d, open, 0).run());
    }
  }
}

TEST(DecodeTimes, SumOfManyStepsIsTheSumOfEach) {
  for (const char* model : {"llama-3.1-8b", "gpt-oss-20b", "deepseek-v3.2"}) {
    Result<Blueprint> blueprint = find_model(model);
    ASSERT_TRUE(blueprint.ok());
    Deployment d = llama_8b();
    d.model = *blueprint;
    StepModel steps(d);
    DecodeTimes times(steps);
    double sum = 0;
    for (int64_t step = 0; step < 5000; ++step)
      sum += steps.seconds({.decode_sequences = 20, .decode_context = 50.5 + static_cast<double>(step)});
    expect_near_share(times.seconds(20, 50.5, 5000), sum, 1e-10);
    EXPECT_EQ(times.steps_for(20, 50.5, sum * (1 - 1e-9), 9000), 5000);
    EXPECT_EQ(times.steps_for(20, 50.5, sum * (1 + 1e-9), 9000), 5001);
    EXPECT_EQ(times.steps_for(20, 50.5, sum, 7), 7);
  }
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
