#include "recsys/slot_map.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace tessera::recsys {
namespace {

TEST(SlotMapTest, EveryServerOwnsTheSameShare) {
  for (uint32_t servers : {1u, 2u, 3u, 7u, 30u, 128u}) {
    std::vector<int64_t> owned(servers, 0);
    for (uint16_t server : slot_map(servers).servers()) ++owned[server];
    EXPECT_LE(*std::max_element(owned.begin(), owned.end()) - *std::min_element(owned.begin(), owned.end()), 1)
        << servers << " servers";
  }
}

TEST(SlotMapTest, OneMoreServerTakesItsShareAndNothingElseMoves) {
  for (uint32_t servers = 1; servers < 40; ++servers) {
    const SlotMap before(servers), after(servers + 1);
    int64_t moved = 0;
    for (uint32_t slot = 0; slot < SlotMap::kSlots; ++slot) {
      if (before.servers()[slot] == after.servers()[slot]) continue;
      EXPECT_EQ(after.servers()[slot], servers);
      ++moved;
    }
    EXPECT_NEAR(static_cast<double>(moved), SlotMap::kSlots / (servers + 1.0), 1);
  }
}

TEST(SlotMapTest, IdsOfAServerAreSpreadEvenly) {
  std::vector<int64_t> ids(3, 0);
  for (uint64_t id = 0; id < 30000; ++id) ++ids[server_of(id, 3)];
  for (int64_t count : ids) EXPECT_NEAR(static_cast<double>(count), 10000, 500);
  EXPECT_EQ(server_of(17, 3), slot_map(3).server_of(17));
}

}  // namespace
}  // namespace tessera::recsys
