#include "batching/replicas.h"

#include <gtest/gtest.h>

#include <numeric>
#include <tuple>

namespace tessera::batching {
namespace {

Submission prompt_like(RequestId id, int64_t prompt, int64_t first_token) {
  Submission submission{.id = id, .prompt_tokens = prompt, .max_length = prompt + 8};
  submission.tokens.resize(static_cast<size_t>(prompt));
  std::iota(submission.tokens.begin(), submission.tokens.end(), first_token);
  return submission;
}

TEST(Replicas, RequestsGoWhereFewestTokensAreClaimed) {
  Replicas replicas({.blocks = 64, .block_tokens = 4}, 3);
  const std::vector<int64_t> prompts{40, 8, 8, 8, 8};  // the first one keeps its replica busy
  for (size_t i = 0; i < prompts.size(); ++i)
    ASSERT_TRUE(
        replicas.submit(prompt_like(static_cast<RequestId>(i), prompts[i], 100 * static_cast<int64_t>(i)))
            .ok());
  std::vector<int64_t> homes;
  for (RequestId id = 0; id < 5; ++id) homes.push_back(replicas.replica_of(id));
  EXPECT_EQ(homes, (std::vector<int64_t>{0, 1, 2, 1, 2}));
  EXPECT_TRUE(replicas.finish(0));
  EXPECT_FALSE(replicas.finish(0));
  EXPECT_EQ(replicas.choose(prompt_like(9, 8, 900)), 0);
}

TEST(Replicas, AKnownBeginningAttractsUnlessItsReplicaIsMuchBusier) {
  Replicas replicas({.blocks = 64, .block_tokens = 4}, 2);
  ASSERT_TRUE(replicas.submit(prompt_like(1, 8, 0)).ok());     // to replica 0
  ASSERT_TRUE(replicas.submit(prompt_like(2, 20, 500)).ok());  // to replica 1
  for (const Step& step : replicas.next_steps()) EXPECT_EQ(step.entries.size(), 1u);
  replicas.finish(1);
  replicas.finish(2);
  // Its first 16 tokens lie on replica 1.
  EXPECT_EQ(replicas.choose(prompt_like(3, 24, 500)), 1);
  EXPECT_EQ(replicas.choose(prompt_like(3, 24, 700)), 0);
  ASSERT_TRUE(replicas.submit(prompt_like(4, 24, 500)).ok());
  ASSERT_EQ(replicas.replica_of(4), 1);
  EXPECT_EQ(replicas.choose(prompt_like(5, 24, 500)), 0);  // 32 tokens are claimed there, 16 would be found
  EXPECT_EQ(replicas.blocks_in_use(), 0);
}

TEST(BroughtKv, IsPutInPlaceOnceAndFoundByOthers) {
  Scheduler scheduler({.blocks = 16, .block_tokens = 4});
  Submission first = prompt_like(1, 10, 0), second = prompt_like(2, 10, 0);
  first.brought_tokens = second.brought_tokens = 8;
  ASSERT_TRUE(scheduler.submit(first).ok());
  ASSERT_TRUE(scheduler.submit(second).ok());
  Step step = scheduler.next_step();
  ASSERT_EQ(step.arrivals.size(), 1u);  // the second one finds the blocks of the first
  EXPECT_EQ(std::tuple(step.arrivals[0].id, step.arrivals[0].first, step.arrivals[0].count),
            std::tuple(1, 0, 2));
  ASSERT_EQ(step.entries.size(), 2u);
  for (const StepEntry& entry : step.entries)
    EXPECT_EQ(std::tuple(entry.first, entry.count, entry.samples), std::tuple(8, 2, true));
  scheduler.reset();  // the cache is lost, and with it what was brought
  step = scheduler.next_step();
  EXPECT_TRUE(step.arrivals.empty());
  EXPECT_EQ(step.entries.at(0).first, 0);
}

}  // namespace
}  // namespace tessera::batching
