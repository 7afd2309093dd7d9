// A served store on its way to another number of servers: what waits, what goes on, and what is refused.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <future>
#include <set>

#include "recsys_train/served_store.h"

namespace tessera::recsys_train {
namespace {

using Stand = ServedStore::Stand;

class ServedMoveTest : public ::testing::Test {
 protected:
  ServedMoveTest()
      : store_(*recsys::Store::create({.groups = {{.dim = 2}}}),
               {.parts = 1, .ordered = true, .timeout_s = 30}) {
    store_.take_seat({.server = 0, .servers = 2, .map = 4});
    EXPECT_TRUE(store_.clean());
  }
  Status put(int64_t step, uint64_t map = 4) {
    const std::vector<uint64_t> ids = {1, 2, 3, 4};
    std::vector<float> rows(ids.size() * 2, 0.5f);
    if (Status got = store_.get(0, ids, rows, {.map = map}); !got.ok()) return got;
    recsys::PutOptions options{.step = static_cast<uint64_t>(step)};
    options.sender = sender_of(0, 0, 1);
    options.sequence = static_cast<uint64_t>(step + 1);
    return store_.put(0, ids, rows, options, map);
  }
  Status get(uint64_t map) {
    const std::vector<uint64_t> ids = {9};
    std::vector<float> rows(2);
    return store_.get(0, ids, rows, {.map = map});
  }
  static bool waits(const std::future<Status>& answer) {
    return answer.wait_for(std::chrono::milliseconds(50)) == std::future_status::timeout;
  }
  ServedStore store_;
};

TEST_F(ServedMoveTest, PutsOfTheStepWaitAndAreToldOfTheNewMap) {
  ASSERT_TRUE(put(0));
  ASSERT_TRUE(store_.hold_at(2));
  EXPECT_EQ(store_.stand_still(2), Stand::not_yet);
  ASSERT_TRUE(put(1));
  std::future<Status> late = std::async(std::launch::async, [this] {
    recsys::PutOptions options{.step = 2, .sender = sender_of(0, 0, 1), .sequence = 3};
    return store_.put(0, {}, {}, options, 4);
  });
  EXPECT_TRUE(waits(late));
  EXPECT_EQ(store_.stand_still(2), Stand::still);
  std::future<Status> reader = std::async(std::launch::async, [this] { return get(4); });
  EXPECT_TRUE(waits(reader));
  store_.take_seat({.server = 0, .servers = 3, .map = 5});
  EXPECT_EQ(late.get().error().code, ErrorCode::unavailable);
  EXPECT_EQ(reader.get().error().code, ErrorCode::unavailable);
  EXPECT_EQ(get(4).error().code, ErrorCode::unavailable);
  EXPECT_TRUE(get(5));
  EXPECT_EQ(store_.latest(), 2u) << "the put that was refused is not in the rows";
  EXPECT_TRUE(put(2, 5));
}

TEST_F(ServedMoveTest, ReleasedPutsGoOn) {
  ASSERT_TRUE(put(0));
  ASSERT_TRUE(store_.hold_at(1));
  EXPECT_EQ(store_.stand_still(1), Stand::still);
  std::future<Status> late = std::async(std::launch::async, [this] { return put(1); });
  EXPECT_TRUE(waits(late));
  store_.release();
  EXPECT_TRUE(late.get());
  EXPECT_EQ(store_.stand_still(1), Stand::not_yet) << "nobody holds it any more";
}

TEST_F(ServedMoveTest, AHoldThatComesTooLateIsRefused) {
  for (int64_t step = 0; step < 3; ++step) ASSERT_TRUE(put(step));
  EXPECT_EQ(store_.hold_at(2).error().code, ErrorCode::aborted);
  EXPECT_TRUE(put(3));
}

TEST_F(ServedMoveTest, ACheckpointIsOfOneMap) {
  const auto folder =
      std::filesystem::temp_directory_path() / ("tessera-served-move-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  ASSERT_TRUE(put(0));
  ASSERT_TRUE(store_.begin_save(folder.string(), "rows", 1, true, 4));
  ASSERT_TRUE(store_.hold_at(1));
  EXPECT_EQ(store_.stand_still(1), Stand::saving);
  ASSERT_TRUE(store_.finish_save(1).ok());
  EXPECT_EQ(store_.stand_still(1), Stand::still);
  std::filesystem::remove_all(folder);
}

TEST_F(ServedMoveTest, RowsOfOthersGoAndDigestsWaitForIt) {
  ASSERT_TRUE(put(0));
  store_.take_seat({.server = 1, .servers = 3, .map = 5});
  auto digest = std::async(std::launch::async, [this] { return store_.digest(0, 1, 5); });
  EXPECT_EQ(digest.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  ASSERT_TRUE(store_.clean());
  ASSERT_TRUE(digest.get().ok());
  std::set<uint64_t> left;
  ASSERT_TRUE(store_.store().for_each(0, [&](uint64_t id, std::span<const std::byte>) { left.insert(id); }));
  for (uint64_t id : left) EXPECT_EQ(recsys::server_of(id, 3), 1u);
  EXPECT_EQ(store_.digest(0, 1, 4).error().code, ErrorCode::unavailable);
}

TEST_F(ServedMoveTest, ANewServerBeginsWhereTheOthersStand) {
  ASSERT_TRUE(store_.begin_at(7));
  EXPECT_EQ(store_.latest(), 7u);
  EXPECT_TRUE(put(6)) << "it is in the rows that came";
  EXPECT_EQ(store_.latest(), 7u);
  EXPECT_TRUE(put(7));
}

}  // namespace
}  // namespace tessera::recsys_train
