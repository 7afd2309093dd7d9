#include "serve/step_batch.h"

#include <gtest/gtest.h>

#include <thread>

namespace tessera::serve {
namespace {

TEST(StepBatch, EveryRankGetsWhatRankZeroAnnounced) {
  auto groups = make_thread_groups(3);
  StepBatch batch{.tokens = {5, 6, 7},
                  .positions = {0, 1, 9},
                  .sequence = {0, 0, 1},
                  .slot = {16, 17, 41},
                  .block_table = {1, 0, 3, 2},
                  .max_blocks = 2,
                  .wanted = {1, 2},
                  .moves = {{.from_tier = 0, .to_tier = 1, .from = 3, .to = 7}, {2, 0, 5, 3}}};
  // The second replica has nothing to do.
  const std::vector<StepBatch> batches{batch, {}, batch};
  std::vector<std::thread> followers;
  for (size_t rank = 1; rank < 3; ++rank)
    followers.emplace_back([&, rank] {
      auto idle = follow(*groups[rank]);
      ASSERT_TRUE(idle) << idle.error().message;
      EXPECT_EQ(idle->command, Command::idle);
      auto step = follow(*groups[rank]);
      ASSERT_TRUE(step) << step.error().message;
      EXPECT_EQ(step->command, Command::step);
      EXPECT_EQ(step->batches, batches);
      EXPECT_EQ(follow(*groups[rank])->command, Command::stop);
    });
  EXPECT_TRUE(announce(*groups[0], Command::idle, {}).ok());
  EXPECT_TRUE(announce(*groups[0], Command::step, batches).ok());
  EXPECT_TRUE(announce(*groups[0], Command::stop, {}).ok());
  for (auto& follower : followers) follower.join();
}

}  // namespace
}  // namespace tessera::serve
