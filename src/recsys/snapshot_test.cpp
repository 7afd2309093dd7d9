#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>
#include <random>
#include <thread>

#include "core/file.h"
#include "recsys/store.h"

namespace tessera::recsys {
namespace {

namespace fs = std::filesystem;
using Kind = Store::SnapshotKind;
using State = std::map<uint64_t, std::vector<std::byte>>;

class SnapshotTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("tessera-snapshot-" + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string file(const std::string& name) const { return (folder_ / name).string(); }
  fs::path folder_;
};

GroupOptions evicting() {
  GroupOptions group{.name = "user", .dim = 6, .row_type = RowType::bf16};
  group.optimizer.kind = OptimizerOptions::Kind::adam;
  group.eviction = {.kind = EvictionOptions::Kind::lru, .budget_bytes = 300'000};
  return group;
}
std::unique_ptr<Store> make(const std::vector<GroupOptions>& groups) {
  auto store = Store::create({.groups = groups, .num_shards = 8});
  EXPECT_TRUE(store.ok()) << (store.ok() ? "" : store.error().message);
  return *std::move(store);
}
State state_of(const Store& store, int64_t group = 0) {
  State state;
  Status status = store.for_each(group, [&](uint64_t id, std::span<const std::byte> record) {
    EXPECT_TRUE(state.try_emplace(id, record.begin(), record.end()).second) << "two rows of one id";
  });
  EXPECT_TRUE(status.ok()) << status.error().message;
  return state;
}
// Gets, puts and erasures of random ids.
void work_on(Store& store, uint64_t seed, int batches, uint64_t universe) {
  std::mt19937_64 random(seed);
  size_t dim = static_cast<size_t>(store.group(0).dim);
  for (int b = 0; b < batches; ++b) {
    std::vector<uint64_t> ids(200);
    for (uint64_t& id : ids) id = random() % universe;
    std::vector<float> rows(ids.size() * dim), gradients(ids.size() * dim);
    for (float& g : gradients) g = static_cast<float>(random() % 100) * 0.01f - 0.5f;
    ASSERT_TRUE(store.get(0, ids, rows));
    ASSERT_TRUE(store.put(0, ids, gradients, {.step = static_cast<uint64_t>(b)}).ok());
    if (b % 7 == 0) store.erase(0, std::span(ids).first(20));
  }
}

TEST_F(SnapshotTest, FullAndDeltasEqualTheLiveStateByteForByte) {
  auto store = make({evicting()});
  work_on(*store, 1, 50, 8000);
  std::atomic<bool> stop{false};
  std::thread trainer([&] {
    for (uint64_t seed = 2; !stop; ++seed) work_on(*store, seed, 5, 8000);
  });
  std::vector<std::string> files = {file("full"), file("delta1"), file("delta2"), file("delta3")};
  ASSERT_TRUE(store->save(files[0], Kind::full).ok());
  ASSERT_TRUE(store->save(files[1], Kind::delta).ok());
  ASSERT_TRUE(store->save(files[2], Kind::delta).ok());
  stop = true;
  trainer.join();
  work_on(*store, 99, 2, 8000);
  auto last = store->save(files[3], Kind::delta);
  ASSERT_TRUE(last.ok());
  EXPECT_EQ(last->number, 3u);

  auto copy = make({evicting()});
  Status loaded = copy->load(files);
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_GT(store->stats(0).evicted, 0);
  EXPECT_EQ(state_of(*copy), state_of(*store));
}

TEST_F(SnapshotTest, ChainsHaveDeltasOfTheirOwn) {
  auto store = make({evicting()});
  std::map<SnapshotChain, std::vector<std::string>> files;
  auto save = [&](SnapshotChain chain) {
    std::vector<std::string>& mine = files[chain];
    mine.push_back(file(std::to_string(static_cast<int>(chain)) + "-" + std::to_string(mine.size())));
    auto saved = store->save(mine.back(), mine.size() == 1 ? Kind::full : Kind::delta, {}, chain);
    ASSERT_TRUE(saved.ok()) << saved.error().message;
    EXPECT_EQ(saved->number, mine.size() - 1);
  };
  EXPECT_FALSE(store->save(file("early"), Kind::delta, {}, SnapshotChain::versions).ok());
  for (uint64_t round = 1; round <= 12; ++round) {
    work_on(*store, round, 10, 8000);
    save(SnapshotChain::versions);
    if (round % 3 != 0) continue;
    work_on(*store, 100 + round, 5, 8000);
    save(SnapshotChain::checkpoints);
  }
  save(SnapshotChain::versions);
  EXPECT_GT(store->stats(0).evicted, 0);
  for (const auto& [chain, paths] : files) {
    auto copy = make({evicting()});
    Status loaded = copy->load(paths);
    ASSERT_TRUE(loaded) << loaded.error().message;
    EXPECT_EQ(state_of(*copy), state_of(*store)) << static_cast<int>(chain);
  }
}

TEST_F(SnapshotTest, OneChainTakesNothingFromTheOther) {
  auto store = make({GroupOptions{.dim = 6}});
  std::vector<uint64_t> ids(5000);
  std::iota(ids.begin(), ids.end(), uint64_t{0});
  std::vector<float> rows(ids.size() * 6, 0.5f);
  ASSERT_TRUE(store->get(0, ids, rows));
  auto save = [&](Kind kind, SnapshotChain chain) { return *store->save(file("any"), kind, {}, chain); };
  using enum SnapshotChain;
  save(Kind::full, checkpoints);
  save(Kind::full, versions);
  ASSERT_TRUE(store->put(0, std::span(ids).first(70), std::span<const float>(rows).first(420)).ok());
  store->erase(0, std::span(ids).last(30));
  EXPECT_EQ(save(Kind::delta, versions).rows, 70);
  ASSERT_TRUE(store->put(0, std::span(ids).first(5), std::span<const float>(rows).first(30)).ok());
  EXPECT_EQ(save(Kind::delta, versions).rows, 5);
  auto late = save(Kind::delta, checkpoints);
  EXPECT_EQ(late.rows, 70);
  EXPECT_EQ(late.removed, 30);
  // One that nothing follows is in nobody's chain.
  ASSERT_TRUE(store->put(0, std::span(ids).first(3), std::span<const float>(rows).first(18)).ok());
  EXPECT_EQ(save(Kind::full, SnapshotChain::none).rows, 4970);
  EXPECT_EQ(save(Kind::delta, versions).rows, 3);
  EXPECT_EQ(save(Kind::delta, checkpoints).rows, 3);
  EXPECT_EQ(save(Kind::delta, checkpoints).rows, 0);
  // A full one of the other chain owes the first its changes as well.
  ASSERT_TRUE(store->put(0, std::span(ids).first(9), std::span<const float>(rows).first(54)).ok());
  save(Kind::full, versions);
  EXPECT_EQ(save(Kind::delta, checkpoints).rows, 9);
}

TEST_F(SnapshotTest, DeltaHoldsOnlyTouchedRows) {
  GroupOptions group{.dim = 6};
  auto store = make({group});
  std::vector<uint64_t> ids(5000);
  std::iota(ids.begin(), ids.end(), uint64_t{0});
  std::vector<float> rows(ids.size() * 6, 0.5f);
  ASSERT_TRUE(store->get(0, ids, rows));
  EXPECT_EQ(store->save(file("full"), Kind::full)->rows, 5000);
  ASSERT_TRUE(store->put(0, std::span(ids).first(70), std::span<const float>(rows).first(420)).ok());
  store->erase(0, std::span(ids).last(30));
  auto delta = store->save(file("delta"), Kind::delta);
  EXPECT_EQ(delta->rows, 70);
  EXPECT_EQ(delta->removed, 30);
  EXPECT_EQ(store->save(file("empty"), Kind::delta)->rows, 0);
}

TEST_F(SnapshotTest, SnapshotCutsBetweenTwoPuts) {
  GroupOptions group{.dim = 2};
  group.init.kind = InitOptions::Kind::zeros;
  group.optimizer = {.kind = OptimizerOptions::Kind::sgd, .learning_rate = 1};
  auto store = make({group});
  std::vector<uint64_t> ids(30'000);
  std::iota(ids.begin(), ids.end(), uint64_t{0});
  std::vector<float> rows(ids.size() * 2), ones(ids.size() * 2, -1.0f);
  ASSERT_TRUE(store->get(0, ids, rows));
  std::atomic<bool> stop{false};
  std::thread trainer([&] {
    while (!stop) ASSERT_TRUE(store->put(0, ids, ones).ok());
  });
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(store->save(file("full"), Kind::full).ok());
    auto copy = make({group});
    std::vector<std::string> files = {file("full")};
    ASSERT_TRUE(copy->load(files));
    ASSERT_TRUE(copy->get(0, ids, rows, Access::read));
    EXPECT_EQ(std::count(rows.begin(), rows.end(), rows[0]), static_cast<std::ptrdiff_t>(rows.size()));
  }
  stop = true;
  trainer.join();
}

TEST_F(SnapshotTest, TwoServersReloadAsThree) {
  GroupOptions group{.dim = 4};
  std::vector<uint64_t> ids(3000);
  std::iota(ids.begin(), ids.end(), uint64_t{500});
  State all;
  std::vector<std::string> files;
  for (uint32_t server = 0; server < 2; ++server) {
    auto store = make({group});
    std::vector<uint64_t> own;
    for (uint64_t id : ids)
      if (server_of(id, 2) == server) own.push_back(id);
    std::vector<float> rows(own.size() * 4, 0.25f);
    ASSERT_TRUE(store->get(0, own, rows));
    ASSERT_TRUE(store->put(0, own, rows).ok());
    files.push_back(file("server" + std::to_string(server)));
    ASSERT_TRUE(store->save(files.back(), Kind::full).ok());
    all.merge(state_of(*store));
  }
  State reloaded;
  for (uint32_t server = 0; server < 3; ++server) {
    auto store = make({group});
    for (const std::string& from : files) {
      std::vector<std::string> chain = {from};
      ASSERT_TRUE(store->load(chain, server, 3));
    }
    EXPECT_GT(store->stats(0).rows, 800);
    reloaded.merge(state_of(*store));
  }
  EXPECT_EQ(reloaded, all);
}

TEST_F(SnapshotTest, DamageIsNamedAndNothingIsTaken) {
  auto store = make({evicting()});
  work_on(*store, 5, 10, 2000);
  ASSERT_TRUE(store->save(file("full"), Kind::full).ok());
  ASSERT_TRUE(store->save(file("delta1"), Kind::delta).ok());
  ASSERT_TRUE(store->save(file("delta2"), Kind::delta).ok());
  std::string whole = *read_file(file("full"));
  auto error_of = [&](const std::vector<std::string>& files, const GroupOptions& group = evicting()) {
    auto copy = make({group});
    Status status = copy->load(files);
    EXPECT_FALSE(status.ok());
    EXPECT_EQ(copy->stats(0).rows, 0);
    return status.ok() ? "" : status.error().message;
  };
  for (size_t at : {size_t{3}, size_t{60}, whole.size() / 2, whole.size() - 3}) {
    std::string flipped = whole;
    flipped[at] = static_cast<char>(flipped[at] ^ 4);
    std::ofstream(file("flipped"), std::ios::binary) << flipped;
    EXPECT_NE(error_of({file("flipped")}).find("flipped"), std::string::npos) << at;
    std::ofstream(file("cut"), std::ios::binary) << whole.substr(0, at);
    EXPECT_NE(error_of({file("cut")}).find("cut"), std::string::npos) << at;
  }
  EXPECT_NE(error_of({file("full"), file("delta2")}).find("does not follow"), std::string::npos);
  EXPECT_NE(error_of({file("delta1")}).find("begin with the full"), std::string::npos);
  GroupOptions other = evicting();
  other.dim = 7;
  EXPECT_NE(error_of({file("full")}, other).find("other groups"), std::string::npos);
  EXPECT_FALSE(make({evicting()})->save(file("early"), Kind::delta).ok());
  EXPECT_FALSE(store->save(file("no/such/folder"), Kind::full).ok());
}

}  // namespace
}  // namespace tessera::recsys
