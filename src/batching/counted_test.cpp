#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "batching/counted_scheduler.h"
#include "batching/scheduler.h"

namespace tessera::batching {
namespace {

// Scheduler walked step by step, with its steps counted as CountedScheduler counts them.
class Walker {
 public:
  explicit Walker(const CountedOptions& options)
      : scheduler_({.blocks = options.blocks,
                    .block_tokens = options.block_tokens,
                    .max_batch_tokens = options.max_batch_tokens,
                    .max_running = options.max_running,
                    .max_waiting = 1 << 20}) {}

  bool submit(int64_t prompt, int64_t answer) {
    auto id = std::ssize(prompt_);
    if (!scheduler_.submit(id, prompt, prompt + answer)) return false;
    prompt_.push_back(prompt);
    answer_.push_back(answer);
    answered_.push_back(0);
    return true;
  }

  CountedStep step() {
    CountedStep counted;
    ended.clear();
    Step step = scheduler_.next_step();
    for (RequestId lost : step.preempted) decoding_.erase(lost);
    counted.preempted = std::ssize(step.preempted);
    for (const StepEntry& entry : step.entries) {
      auto id = static_cast<size_t>(entry.id);
      if (decoding_.contains(entry.id)) {
        ++counted.decodes;
        counted.context += entry.first;
      } else {
        counted.chunks.push_back({id, entry.first, entry.count, entry.samples, answered_[id] > 0});
      }
      if (entry.samples) sample(entry.id);
    }
    return counted;
  }

  const Scheduler& scheduler() const { return scheduler_; }
  std::vector<size_t> ended;

 private:
  void sample(RequestId id) {
    auto at = static_cast<size_t>(id);
    decoding_.insert(id);
    if (++answered_[at] < answer_[at]) return scheduler_.append_token(id);
    scheduler_.finish(id);
    decoding_.erase(id);
    ended.push_back(at);
  }

  Scheduler scheduler_;
  std::vector<int64_t> prompt_, answer_, answered_;
  std::set<RequestId> decoding_;
};

struct Pair {
  explicit Pair(const CountedOptions& options) : walker(options), counted(options) {}

  void submit(int64_t prompt, int64_t answer) {
    bool taken = walker.submit(prompt, answer);
    EXPECT_EQ(counted.submit(prompt, answer).ok(), taken);
  }

  // One step of both, or as many decode steps as there are, at most `most`.
  void advance(int64_t most) {
    int64_t decodes = std::min(most, counted.decode_steps());
    for (int64_t i = 0; i < decodes; ++i) {
      CountedStep step = walker.step();
      ASSERT_EQ(step.decodes, counted.num_decoding());
      ASSERT_EQ(step.context, counted.context() + i * step.decodes);
      ASSERT_TRUE(step.chunks.empty() && step.preempted == 0);
      ASSERT_TRUE(i + 1 == decodes || walker.ended.empty());
    }
    if (decodes > 0) {
      counted.run_decodes(decodes);
    } else {
      CountedStep step = walker.step();
      compare(step, counted.next_step());
      preempted += step.preempted;
    }
    std::vector<size_t> ended(counted.ended().begin(), counted.ended().end());
    std::sort(ended.begin(), ended.end());
    std::sort(walker.ended.begin(), walker.ended.end());
    ASSERT_EQ(ended, walker.ended);
    ASSERT_EQ(counted.num_free(), walker.scheduler().pool().num_free());
    ASSERT_EQ(counted.num_running(), walker.scheduler().num_running());
    ASSERT_EQ(counted.num_waiting(), walker.scheduler().num_waiting());
  }

  static void compare(const CountedStep& walked, const CountedStep& counted) {
    ASSERT_EQ(walked.decodes, counted.decodes);
    ASSERT_EQ(walked.context, counted.context);
    ASSERT_EQ(walked.preempted, counted.preempted);
    ASSERT_EQ(walked.chunks.size(), counted.chunks.size());
    for (size_t i = 0; i < walked.chunks.size(); ++i) {
      EXPECT_EQ(walked.chunks[i].request, counted.chunks[i].request);
      EXPECT_EQ(walked.chunks[i].first, counted.chunks[i].first);
      EXPECT_EQ(walked.chunks[i].count, counted.chunks[i].count);
      EXPECT_EQ(walked.chunks[i].samples, counted.chunks[i].samples);
      EXPECT_EQ(walked.chunks[i].again, counted.chunks[i].again);
    }
  }

  Walker walker;
  CountedScheduler counted;
  int64_t preempted = 0;
};

TEST(CountedScheduler, StepsEqualThoseOfTheScheduler) {
  int64_t preempted = 0, jumped = 0;
  for (uint32_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    auto draw = [&](int64_t low, int64_t high) {
      return std::uniform_int_distribution<int64_t>(low, high)(random);
    };
    CountedOptions options{.blocks = draw(3, 60), .block_tokens = draw(1, 6), .max_batch_tokens = draw(4, 40)};
    options.max_running = draw(1, std::min<int64_t>(12, options.max_batch_tokens));
    Pair pair(options);
    int64_t capacity = options.blocks * options.block_tokens;
    for (int round = 0; round < 150; ++round) {
      for (int64_t i = draw(-4, 3); i > 0; --i) pair.submit(draw(1, capacity / 2 + 2), draw(1, capacity));
      if (pair.counted.idle()) continue;
      int64_t steps = pair.counted.decode_steps();
      ASSERT_NO_FATAL_FAILURE(pair.advance(draw(1, 30)));
      jumped += steps > 1;
    }
    while (!pair.counted.idle()) ASSERT_NO_FATAL_FAILURE(pair.advance(1 << 20));
    preempted += pair.preempted;
    EXPECT_EQ(pair.counted.num_free(), options.blocks);
  }
  EXPECT_GT(preempted, 1000);
  EXPECT_GT(jumped, 1000);
}

// vLLM's shape: hundreds of sequences, blocks of 16.
TEST(CountedScheduler, ServesHundredsAsTheSchedulerDoes) {
  std::mt19937 random(7);
  Pair pair({.blocks = 6000, .max_batch_tokens = 2048, .max_running = 256});
  for (int i = 0; i < 900; ++i) pair.submit(1 + random() % 700, 1 + random() % 300);
  while (!pair.counted.idle()) ASSERT_NO_FATAL_FAILURE(pair.advance(1 << 20));
}

TEST(CountedScheduler, AnswersWaitWhilePromptsRunAlone) {
  CountedScheduler scheduler(
      {.blocks = 100, .max_batch_tokens = 32, .max_running = 8, .prompts = PromptSteps::alone});
  ASSERT_TRUE(scheduler.submit(20, 10).ok());
  scheduler.next_step();
  ASSERT_TRUE(scheduler.submit(50, 10).ok());
  for (int64_t count : {32, 18}) {
    const CountedStep& step = scheduler.next_step();
    EXPECT_EQ(step.decodes, 0);
    ASSERT_EQ(step.chunks.size(), 1u);
    EXPECT_EQ(step.chunks[0].count, count);
  }
  EXPECT_EQ(scheduler.decode_steps(), 9);
  EXPECT_EQ(scheduler.num_decoding(), 2);
}

TEST(CountedScheduler, CachedPromptTokensAreHeldAndNotComputed) {
  CountedScheduler scheduler({.blocks = 10, .block_tokens = 4});
  ASSERT_TRUE(scheduler.submit(20, 2, 16).ok());
  EXPECT_EQ(scheduler.next_step().chunks.at(0).count, 4);
  EXPECT_EQ(scheduler.num_free(), 5);
  EXPECT_EQ(scheduler.context(), 20);
}

TEST(CountedScheduler, ReservedAnswersAreHeldFromTheStartAndNeverYield) {
  CountedScheduler scheduler({.blocks = 10, .block_tokens = 4, .reserves_answers = true});
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(scheduler.submit(4, 12).ok());
  EXPECT_EQ(scheduler.next_step().chunks.size(), 2u);
  EXPECT_EQ(scheduler.num_free(), 2);
  EXPECT_EQ(scheduler.decode_steps(), 11);
  scheduler.run_decodes(11);
  EXPECT_EQ(scheduler.ended().size(), 2u);
  EXPECT_EQ(scheduler.num_free(), 10);
}

TEST(CountedScheduler, RequestThatCanNeverFitIsRefused) {
  CountedScheduler scheduler({.blocks = 2, .block_tokens = 4});
  EXPECT_EQ(scheduler.submit(5, 4).error().code, ErrorCode::invalid_argument);
  EXPECT_TRUE(scheduler.submit(4, 4).ok());
}

}  // namespace
}  // namespace tessera::batching
