#include "recsys/owed_rows.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace tessera::recsys {
namespace {

constexpr SnapshotChain kCheckpoints = SnapshotChain::checkpoints, kVersions = SnapshotChain::versions,
                        kMoves = SnapshotChain::moves, kNone = SnapshotChain::none;

TEST(OwedRowsTest, AChangeIsOwedToEveryChainUntilItIsCut) {
  OwedRows owed;
  EXPECT_EQ(owed.cut(kCheckpoints, 7, 0b1), 0b1u);  // nobody else follows yet
  owed.follow(kCheckpoints);
  EXPECT_EQ(owed.cut(kVersions, 7, 0b10), 0b10u);
  owed.follow(kVersions);
  EXPECT_TRUE(owed.owes(7 * 64 + 1));
  EXPECT_FALSE(owed.owes(7 * 64));
  EXPECT_EQ(owed.cut(kCheckpoints, 7, 0b100), 0b110u);
  EXPECT_EQ(owed.cut(kCheckpoints, 7, 0), 0u);
  EXPECT_EQ(owed.cut(kVersions, 7, 0), 0b100u);
}

TEST(OwedRowsTest, OneWhoNobodyFollowsTakesNothingFromTheOthers) {
  OwedRows owed;
  owed.follow(kCheckpoints);
  EXPECT_EQ(owed.cut(kNone, 3, 0b11), 0b11u);
  EXPECT_EQ(owed.cut(kCheckpoints, 3, 0), 0b11u);
}

TEST(OwedRowsTest, AForgottenChainKeepsNothing) {
  OwedRows owed;
  owed.follow(kMoves);
  owed.cut(kCheckpoints, 100, 0b1);
  std::vector<uint64_t> removed = {5, 6};
  owed.cut(kCheckpoints, removed);
  owed.forget(kMoves);
  EXPECT_FALSE(owed.owes(100 * 64));
  owed.cut(kCheckpoints, 100, 0b10);
  EXPECT_EQ(owed.cut(kMoves, 100, 0), 0u);
  removed.clear();
  owed.cut(kMoves, removed);
  EXPECT_TRUE(removed.empty());
}

// Against sets: each chain sees exactly what changed, or went, since its own last cut.
TEST(OwedRowsTest, ThreeChainsSeeWhatChangedSinceTheirOwnCuts) {
  constexpr size_t kWords = 5;
  const SnapshotChain chains[] = {kCheckpoints, kVersions, kMoves};
  std::mt19937_64 random(7);
  OwedRows owed;
  for (SnapshotChain chain : chains) owed.follow(chain);
  std::vector<uint64_t> changed(kWords, 0), removed;
  std::set<uint32_t> rows_of[3];
  std::multiset<uint64_t> ids_of[3];
  for (int round = 0; round < 3000; ++round) {
    const auto row = static_cast<uint32_t>(random() % (kWords * 64));
    changed[row / 64] |= uint64_t{1} << row % 64;
    for (auto& rows : rows_of) rows.insert(row);
    if (random() % 3 == 0) {
      removed.push_back(random() % 50);
      for (auto& ids : ids_of) ids.insert(removed.back());
    }
    if (random() % 10 != 0) continue;
    const size_t cutter = random() % 3;
    std::set<uint32_t> seen;
    for (size_t word = 0; word < kWords; ++word) {
      const uint64_t bits = owed.cut(chains[cutter], word, std::exchange(changed[word], 0));
      for (uint32_t bit = 0; bit < 64; ++bit)
        if ((bits >> bit & 1) != 0) seen.insert(static_cast<uint32_t>(word) * 64 + bit);
    }
    ASSERT_EQ(seen, rows_of[cutter]) << "round " << round;
    rows_of[cutter].clear();
    std::vector<uint64_t> gone = std::exchange(removed, {});
    owed.cut(chains[cutter], gone);
    ASSERT_EQ(std::multiset<uint64_t>(gone.begin(), gone.end()), ids_of[cutter]);
    ids_of[cutter].clear();
  }
}

}  // namespace
}  // namespace tessera::recsys
