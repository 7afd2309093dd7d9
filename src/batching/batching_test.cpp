#include "batching/batching.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

namespace tessera::batching {
namespace {

SchedulerOptions small_pool() {
  return {.blocks = 8, .block_tokens = 4, .max_batch_tokens = 16, .max_running = 4, .max_waiting = 100};
}

// Runs every sampled row to a next token until requests reach their length; returns the steps it took.
struct Driver {
  explicit Driver(SchedulerOptions options) : scheduler(options) {}

  void submit(RequestId id, int64_t prompt, int64_t answer) {
    ASSERT_TRUE(scheduler.submit(id, prompt, prompt + answer).ok());
    length[id] = prompt;
    goal[id] = prompt + answer;
  }

  Step step() {
    Step step = scheduler.next_step();
    for (const StepEntry& entry : step.entries) {
      check(entry);
      if (!entry.samples) continue;
      if (length[entry.id] + 1 >= goal[entry.id]) {
        EXPECT_TRUE(scheduler.finish(entry.id));
        finished.push_back(entry.id);
      } else {
        ++length[entry.id];
        scheduler.append_token(entry.id);
      }
    }
    return step;
  }

  // Tokens come in order without a hole, and restart at zero only after a preemption.
  void check(const StepEntry& entry) {
    EXPECT_GT(entry.count, 0);
    EXPECT_TRUE(entry.first == computed[entry.id] || entry.first == 0);
    computed[entry.id] = entry.first + entry.count;
    EXPECT_EQ(entry.samples, computed[entry.id] == length[entry.id]);
    auto blocks = scheduler.blocks_of(entry.id);
    EXPECT_GE(static_cast<int64_t>(blocks.size()) * scheduler.options().block_tokens, computed[entry.id]);
  }

  Scheduler scheduler;
  std::map<RequestId, int64_t> length, goal, computed;
  std::vector<RequestId> finished;
};

TEST(BlockPool, SharedBlockIsFreedByItsLastOwner) {
  BlockPool pool(2);
  BlockId block = pool.allocate().value();
  pool.share(block);
  pool.release(block);
  EXPECT_EQ(pool.num_used(), 1);
  pool.release(block);
  EXPECT_EQ(pool.num_free(), 2);
}

TEST(BlockPool, GivesNoBlockTwiceAndNoneWhenEmpty) {
  BlockPool pool(3);
  std::set<BlockId> given;
  for (int i = 0; i < 3; ++i) given.insert(pool.allocate().value());
  EXPECT_EQ(given.size(), 3u);
  EXPECT_FALSE(pool.allocate().has_value());
}

TEST(BlockPoolDeathTest, ReleasingAFreeBlockStops) {
  BlockPool pool(1);
  EXPECT_DEATH(pool.release(0), "free already");
}

TEST(Scheduler, LongPromptRunsInChunksOfTheBudget) {
  Driver driver(small_pool());
  driver.submit(1, 20, 2);
  EXPECT_EQ(driver.step().tokens(), 16);
  Step second = driver.step();
  EXPECT_EQ(second.tokens(), 4);
  EXPECT_TRUE(second.entries[0].samples);
}

TEST(Scheduler, DecodesComeBeforePrefillsAndShareTheBudget) {
  Driver driver(small_pool());
  driver.submit(1, 3, 5);
  driver.step();
  driver.submit(2, 20, 2);
  Step step = driver.step();
  ASSERT_EQ(step.entries.size(), 2u);
  EXPECT_EQ(step.entries[0].id, 1);
  EXPECT_EQ(step.entries[0].count, 1);
  EXPECT_EQ(step.entries[1].count, 15);
}

TEST(Scheduler, YoungestYieldsWhenBlocksRunOutAndIsRecomputed) {
  // 4 blocks of 4 tokens: both fit at first (2 blocks and 1), then both want to grow.
  Driver driver({.blocks = 4, .block_tokens = 4, .max_batch_tokens = 16, .max_running = 4});
  driver.submit(1, 4, 10);
  driver.submit(2, 4, 10);
  std::vector<RequestId> preempted;
  for (int i = 0; i < 100 && !driver.scheduler.idle(); ++i)
    for (RequestId id : driver.step().preempted) preempted.push_back(id);
  EXPECT_FALSE(preempted.empty());
  for (RequestId id : preempted) EXPECT_EQ(id, 2);
  EXPECT_EQ(driver.finished, (std::vector<RequestId>{1, 2}));
  EXPECT_EQ(driver.scheduler.pool().num_free(), 4);
}

TEST(Scheduler, HeadOfTheQueueIsNotOvertakenByAShorterRequest) {
  Driver driver(small_pool());
  driver.submit(1, 20, 4);
  driver.submit(2, 16, 2);
  driver.submit(3, 1, 2);
  while (!driver.scheduler.idle()) driver.step();
  EXPECT_EQ(driver.finished, (std::vector<RequestId>{1, 2, 3}));
}

TEST(Scheduler, CancelFreesBlocksAtOnce) {
  Driver driver(small_pool());
  driver.submit(1, 20, 4);
  driver.step();
  EXPECT_EQ(driver.scheduler.pool().num_used(), 5);
  EXPECT_TRUE(driver.scheduler.finish(1));
  EXPECT_EQ(driver.scheduler.pool().num_used(), 0);
  EXPECT_FALSE(driver.scheduler.finish(1));
}

TEST(Scheduler, RefusesWhatCanNeverFitAndAFullQueue) {
  Scheduler scheduler({.blocks = 2, .block_tokens = 4, .max_waiting = 1});
  EXPECT_EQ(scheduler.submit(1, 5, 9).error().code, ErrorCode::invalid_argument);
  EXPECT_TRUE(scheduler.submit(2, 5, 8).ok());
  EXPECT_EQ(scheduler.submit(3, 1, 2).error().code, ErrorCode::resource_exhausted);
}

// Random arrivals, lengths and cancellations: every block comes back, every request that was not cancelled
// ends within a bounded number of steps, and nothing runs over its budget.
TEST(Scheduler, AnyMixReturnsAllBlocksAndStarvesNobody) {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    std::mt19937 random(seed);
    auto draw = [&](int64_t low, int64_t high) {
      return std::uniform_int_distribution<int64_t>(low, high)(random);
    };
    int64_t blocks = draw(3, 24), block_tokens = draw(1, 5), budget = draw(2, 24);
    SchedulerOptions options{.blocks = blocks,
                             .block_tokens = block_tokens,
                             .max_batch_tokens = budget,
                             .max_running = draw(1, std::min<int64_t>(budget, 6)),
                             .max_waiting = 1000};
    Driver driver(options);
    size_t cancelled = 0;
    for (RequestId id = 0; id < 40; ++id) {
      int64_t prompt = draw(1, options.capacity_tokens() - 1);
      driver.submit(id, prompt, draw(1, options.capacity_tokens() - prompt));
      for (int64_t i = draw(0, 6); i > 0; --i) EXPECT_LE(driver.step().tokens(), budget);
      if (draw(0, 4) == 0) cancelled += driver.scheduler.finish(draw(0, id));
    }
    for (int i = 0; i < 200'000 && !driver.scheduler.idle(); ++i) {
      Step step = driver.step();
      ASSERT_TRUE(!step.entries.empty() || !step.preempted.empty()) << "no progress with seed " << seed;
      ASSERT_LE(step.tokens(), budget);
    }
    EXPECT_EQ(driver.finished.size() + cancelled, 40u) << "seed " << seed;
    EXPECT_EQ(driver.scheduler.pool().num_free(), blocks);
  }
}

TEST(BlockPool, GivesTheLowestFreeBlockAtAnySize) {
  for (int64_t blocks : {1, 63, 64, 65, 4096, 5000}) {
    BlockPool pool(blocks);
    std::set<BlockId> free;
    for (BlockId block = 0; block < blocks; ++block) free.insert(block);
    std::mt19937 random(static_cast<uint32_t>(blocks));
    std::vector<BlockId> used;
    for (int i = 0; i < 20'000; ++i) {
      if (random() % 3 != 0 && !free.empty()) {
        BlockId block = pool.allocate().value();
        ASSERT_EQ(block, *free.begin());
        free.erase(block);
        used.push_back(block);
      } else if (!used.empty()) {
        std::swap(used[random() % used.size()], used.back());
        pool.release(used.back());
        free.insert(used.back());
        used.pop_back();
      }
      ASSERT_EQ(pool.num_free(), static_cast<int64_t>(free.size()));
    }
  }
}

}  // namespace
}  // namespace tessera::batching
