// Rows that move to stores of another number: copies by parts, their deltas, and what stays behind.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <thread>

#include "core/file.h"
#include "recsys/store.h"

namespace tessera::recsys {
namespace {

namespace fs = std::filesystem;
using Kind = Store::SnapshotKind;
using State = std::map<std::pair<int64_t, uint64_t>, std::vector<std::byte>>;

constexpr uint64_t kIds = 3000;

std::vector<GroupOptions> groups() {
  GroupOptions user{.name = "user", .dim = 6, .row_type = RowType::bf16};
  user.optimizer.kind = OptimizerOptions::Kind::adam;
  GroupOptions item{.name = "item", .dim = 3};
  item.optimizer.kind = OptimizerOptions::Kind::adagrad_row;
  return {user, item};
}

State state_of(const Store& store) {
  State state;
  for (int64_t group = 0; group < store.num_groups(); ++group)
    EXPECT_TRUE(store.for_each(group, [&](uint64_t id, std::span<const std::byte> record) {
      state[{group, id}] = {record.begin(), record.end()};
    }));
  return state;
}

class MoveTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("tessera-move-" + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string file(const std::string& name) const { return (folder_ / name).string(); }
  std::unique_ptr<Store> make(const DiskOptions& disk = {}) const {
    auto options = groups();
    if (!disk.folder.empty())
      for (GroupOptions& group : options)
        group.eviction = {.kind = EvictionOptions::Kind::lru, .budget_bytes = 30'000};
    return *Store::create({.groups = options, .num_shards = 8, .disk = disk});
  }

  // Trains ids that `server` of `servers` owns.
  static void train(Store& store, uint32_t server, uint32_t servers, uint64_t seed, uint64_t steps = 20) {
    std::mt19937_64 random(seed);
    for (uint64_t step = 0; step < steps; ++step)
      for (int64_t group = 0; group < 2; ++group) {
        std::vector<uint64_t> ids;
        while (ids.size() < 100)
          if (uint64_t id = random() % kIds; server_of(id, servers) == server) ids.push_back(id);
        std::vector<float> rows(ids.size() * static_cast<size_t>(store.group(group).dim));
        ASSERT_TRUE(store.get(group, ids, rows));
        for (float& gradient : rows) gradient = static_cast<float>(random() % 100) * 0.01f - 0.5f;
        ASSERT_TRUE(store.put(group, ids, rows, {.step = seed * 100 + step}).ok());
        if (step % 5 == 0) store.erase(group, std::span(ids).first(10));
      }
  }

  fs::path folder_;
};

// From two servers to three: a copy, deltas while training goes on, and a last one.
TEST_F(MoveTest, RowsOfAThirdServerComeByACopyAndItsDeltas) {
  std::unique_ptr<Store> old[] = {make(), make()};
  auto added = make();
  SnapshotHead heads[2];
  for (uint64_t round = 0; round < 4; ++round)
    for (uint32_t server = 0; server < 2; ++server) {
      train(*old[server], server, 2, 10 * round + server);
      const std::string paths[] = {file("part")};
      auto to_third = [](uint64_t id) { return server_of(id, 3) == 2 ? size_t{0} : size_t{1}; };
      auto info = old[server]->save_parts(paths, to_third, round == 0 ? Kind::full : Kind::delta);
      ASSERT_TRUE(info.ok()) << info.error().message;
      ASSERT_TRUE(added->apply(paths[0], heads[server]));
      // Others who follow the store see what they would have seen.
      if (round != 1) continue;
      ASSERT_TRUE(old[server]->save(file("checkpoint" + std::to_string(server)), Kind::full).ok());
    }
  State expected = state_of(*old[0]);
  expected.merge(state_of(*old[1]));
  int64_t gone = 0;
  State found = state_of(*added);
  for (uint32_t server = 0; server < 2; ++server) {
    gone += *old[server]->keep_only([server](uint64_t id) { return server_of(id, 3) == server; });
    State left = state_of(*old[server]);
    for (const auto& [key, record] : left) EXPECT_EQ(server_of(key.second, 3), server);
    found.merge(left);
    EXPECT_TRUE(left.empty()) << "a row on two servers";
  }
  EXPECT_EQ(gone, static_cast<int64_t>(state_of(*added).size()));
  EXPECT_NEAR(static_cast<double>(gone), static_cast<double>(expected.size()) / 3, 250);
  EXPECT_EQ(found, expected);
  // A checkpoint's next delta says what went.
  for (uint32_t server = 0; server < 2; ++server) {
    const std::string name = std::to_string(server);
    ASSERT_TRUE(old[server]->save(file("delta" + name), Kind::delta).ok());
    auto copy = make();
    ASSERT_TRUE(copy->load(std::vector<std::string>{file("checkpoint" + name), file("delta" + name)}));
    EXPECT_EQ(state_of(*copy), state_of(*old[server]));
  }
}

// From three to two: the third gives its rows to both, which train meanwhile and have deltas of their own.
TEST_F(MoveTest, RowsOfAThirdServerGoBackToTheirOwners) {
  std::unique_ptr<Store> stores[] = {make(), make(), make()};
  for (uint32_t server = 0; server < 3; ++server) train(*stores[server], server, 3, server);
  for (uint32_t server = 0; server < 2; ++server)
    ASSERT_TRUE(stores[server]->save(file("full" + std::to_string(server)), Kind::full).ok());
  SnapshotHead heads[2];
  const std::string paths[] = {file("to0"), file("to1")};
  for (uint64_t round = 0; round < 3; ++round) {
    for (uint32_t server = 0; server < 3; ++server) train(*stores[server], server, 3, 50 + 10 * round + server);
    auto owner = [](uint64_t id) { return size_t{server_of(id, 2)}; };
    ASSERT_TRUE(stores[2]->save_parts(paths, owner, round == 0 ? Kind::full : Kind::delta).ok());
    for (size_t server = 0; server < 2; ++server)
      ASSERT_TRUE(stores[server]->apply(paths[server], heads[server]));
  }
  for (const auto& [key, record] : state_of(*stores[2]))
    EXPECT_EQ(state_of(*stores[server_of(key.second, 2)]).at(key), record);
  for (uint32_t server = 0; server < 2; ++server) {
    const std::string name = std::to_string(server);
    ASSERT_TRUE(stores[server]->save(file("delta" + name), Kind::delta).ok());
    auto copy = make();
    ASSERT_TRUE(copy->load(std::vector<std::string>{file("full" + name), file("delta" + name)}));
    EXPECT_EQ(state_of(*copy), state_of(*stores[server]));
  }
}

TEST_F(MoveTest, RowsOnDiskMoveToo) {
  auto from = make({.folder = file("from")});
  fs::create_directories(file("from"));
  fs::create_directories(file("to"));
  from = make({.folder = file("from")});
  auto to = make({.folder = file("to")});
  train(*from, 0, 1, 3, 60);
  ASSERT_GT(from->stats(0).disk_rows, 0);
  const std::string paths[] = {file("part")};
  SnapshotHead head;
  ASSERT_TRUE(from->save_parts(
                      paths, [](uint64_t id) { return size_t{1 - server_of(id, 2)}; }, Kind::full)
                  .ok());
  ASSERT_TRUE(to->apply(paths[0], head));
  train(*from, 0, 1, 4, 60);
  ASSERT_TRUE(from->save_parts(
                      paths, [](uint64_t id) { return size_t{1 - server_of(id, 2)}; }, Kind::delta)
                  .ok());
  ASSERT_TRUE(to->apply(paths[0], head));
  State expected = state_of(*from);
  ASSERT_TRUE(from->keep_only([](uint64_t id) { return server_of(id, 2) == 0; }).ok());
  State found = state_of(*from);
  for (const auto& [key, record] : found) EXPECT_EQ(server_of(key.second, 2), 0u);
  found.merge(state_of(*to));
  EXPECT_EQ(found, expected);
}

// Training of other rows and reading go on while rows arrive and leave.
TEST_F(MoveTest, OthersWorkMeanwhile) {
  auto from = make(), to = make();
  train(*from, 2, 3, 1, 60);
  std::atomic<bool> stop = false;
  std::thread trainer([&] {
    for (uint64_t seed = 100; !stop; ++seed) train(*to, 0, 3, seed, 3);
  });
  const std::string paths[] = {file("part")};
  for (int i = 0; i < 10; ++i) {
    SnapshotHead head;
    ASSERT_TRUE(from->save_parts(
                        paths, [](uint64_t) { return size_t{0}; }, Kind::full)
                    .ok());
    ASSERT_TRUE(to->apply(paths[0], head));
    EXPECT_EQ(*to->keep_only([](uint64_t id) { return server_of(id, 3) == 0; }),
              static_cast<int64_t>(state_of(*from).size()));
  }
  stop = true;
  trainer.join();
}

TEST_F(MoveTest, ADamagedOrForeignFileIsRefusedWhole) {
  auto from = make(), to = make();
  train(*from, 0, 1, 1);
  const std::string paths[] = {file("full")}, next[] = {file("delta")}, third[] = {file("third")};
  auto all = [](uint64_t) { return size_t{0}; };
  ASSERT_TRUE(from->save_parts(paths, all, Kind::full).ok());
  ASSERT_TRUE(from->save_parts(next, all, Kind::delta).ok());
  ASSERT_TRUE(from->save_parts(third, all, Kind::delta).ok());
  const std::string whole = *read_file(file("full"));
  SnapshotHead head;
  for (size_t at : {size_t{3}, whole.size() / 2, whole.size() - 3}) {
    std::string flipped = whole;
    flipped[at] = static_cast<char>(flipped[at] ^ 4);
    std::ofstream(file("flipped"), std::ios::binary) << flipped;
    EXPECT_FALSE(to->apply(file("flipped"), head).ok());
    std::ofstream(file("cut"), std::ios::binary) << whole.substr(0, at);
    EXPECT_FALSE(to->apply(file("cut"), head).ok());
  }
  EXPECT_FALSE(to->apply(file("delta"), head).ok());
  EXPECT_TRUE(state_of(*to).empty());
  ASSERT_TRUE(to->apply(file("full"), head));
  EXPECT_FALSE(to->apply(file("third"), head).ok());
  EXPECT_EQ(state_of(*to), state_of(*from));
  // Once forgotten, a chain begins anew.
  from->forget(SnapshotChain::moves);
  EXPECT_FALSE(from->save_parts(next, all, Kind::delta).ok());
}

}  // namespace
}  // namespace tessera::recsys
