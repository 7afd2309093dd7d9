#include "recsys_roles/server_map.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace tessera::recsys_roles {
namespace {

TEST(ServerMapTest, AMoveIsInForceFromItsWordOn) {
  auto store = make_memory_store();
  EXPECT_EQ(read_map(*store, 2)->servers, 2);
  Move move = *announce_move(*store, 2, 3);
  EXPECT_EQ(read_map(*store, 2)->servers, 2);
  EXPECT_TRUE(*settle_move(*store, move.number, true));
  EXPECT_EQ(read_map(*store, 2)->servers, 3);
  EXPECT_EQ(read_map(*store, 2)->number, move.number);
  ASSERT_TRUE(break_move(*store)) << "too late";
  EXPECT_EQ(read_map(*store, 2)->servers, 3);
  Move next = *announce_move(*store, 2, 1);
  EXPECT_EQ(next.from.servers, 3);
  ASSERT_TRUE(break_move(*store));
  EXPECT_FALSE(*settle_move(*store, next.number, true));
  EXPECT_EQ(read_map(*store, 2)->servers, 3);
  EXPECT_EQ(read_map(*store, 2)->number, move.number);
}

TEST(ServerMapTest, OneWordStands) {
  for (int round = 0; round < 50; ++round) {
    auto store = make_memory_store();
    Move move = *announce_move(*store, 1, 2);
    std::vector<std::thread> speakers;
    std::atomic<int> done = 0;
    for (int i = 0; i < 4; ++i)
      speakers.emplace_back(
          [&, says = i % 2 == 0] { done += *settle_move(*store, move.number, says) ? 1 : 0; });
    for (std::thread& speaker : speakers) speaker.join();
    EXPECT_TRUE(done == 0 || done == 4) << done;
    EXPECT_EQ(read_map(*store, 1)->servers, done == 4 ? 2 : 1);
  }
}

}  // namespace
}  // namespace tessera::recsys_roles
