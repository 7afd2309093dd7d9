#include "recsys/replica.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "core/file.h"

namespace tessera::recsys {
namespace {

namespace fs = std::filesystem;
using Kind = Store::SnapshotKind;

constexpr uint64_t kUniverse = 4000;

std::vector<GroupOptions> trained_groups() {
  GroupOptions user{.name = "user", .dim = 6, .row_type = RowType::bf16};
  user.optimizer.kind = OptimizerOptions::Kind::adam;
  user.eviction = {.kind = EvictionOptions::Kind::lru, .budget_bytes = 200'000};
  GroupOptions item{.name = "item", .dim = 5, .row_type = RowType::i8};
  item.optimizer.kind = OptimizerOptions::Kind::adagrad;
  item.admission = {.kind = AdmissionOptions::Kind::probability, .probability = 0.5};
  return {user, item};
}

class ReplicaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("tessera-replica-" + std::to_string(::getpid()));
    fs::create_directories(folder_);
    store_ = *Store::create({.groups = trained_groups(), .num_shards = 8});
    replica_ = *Replica::create(trained_groups());
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string file(const std::string& name) const { return (folder_ / name).string(); }

  void train(uint64_t seed) {
    std::mt19937_64 random(seed);
    for (int64_t group = 0; group < 2; ++group)
      for (uint64_t step = 0; step < 30; ++step) {
        std::vector<uint64_t> ids(200);
        for (uint64_t& id : ids) id = random() % kUniverse;
        std::vector<float> rows(ids.size() * static_cast<size_t>(store_->group(group).dim));
        ASSERT_TRUE(store_->get(group, ids, rows));
        for (float& gradient : rows) gradient = static_cast<float>(random() % 100) * 0.01f - 0.5f;
        ASSERT_TRUE(store_->put(group, ids, rows, {.step = seed * 100 + step}).ok());
        if (step % 9 == 0) store_->erase(group, std::span(ids).first(40));
      }
  }
  std::string save(Kind kind, const std::string& name) {
    auto info = store_->save(file(name), kind);
    EXPECT_TRUE(info.ok()) << (info.ok() ? "" : info.error().message);
    return file(name);
  }
  // Ids whose row reads differently.
  int64_t differences() const {
    int64_t count = 0;
    for (int64_t group = 0; group < 2; ++group) {
      const size_t dim = static_cast<size_t>(store_->group(group).dim);
      std::vector<uint64_t> ids(kUniverse);
      for (uint64_t id = 0; id < kUniverse; ++id) ids[id] = id;
      std::vector<float> ours(kUniverse * dim), theirs(kUniverse * dim);
      EXPECT_TRUE(replica_->get(group, ids, ours));
      EXPECT_TRUE(store_->get(group, ids, theirs, Access::read));
      for (size_t i = 0; i < ids.size(); ++i)
        count += std::equal(&ours[i * dim], &ours[i * dim] + dim, &theirs[i * dim]) ? 0 : 1;
    }
    return count;
  }

  fs::path folder_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Replica> replica_;
};

TEST_F(ReplicaTest, RowsReadAsInTheTrainedStoreAfterEachFile) {
  train(1);
  ASSERT_TRUE(replica_->apply(0, save(Kind::full, "full")));
  EXPECT_EQ(differences(), 0);
  for (uint64_t k = 2; k < 6; ++k) {
    train(k);
    EXPECT_GT(differences(), 0);
    ASSERT_TRUE(replica_->apply(0, save(Kind::delta, "delta" + std::to_string(k))));
    EXPECT_EQ(differences(), 0);
  }
}

TEST_F(ReplicaTest, KeepsNoOptimizerState) {
  train(1);
  ASSERT_TRUE(replica_->apply(0, save(Kind::full, "full")));
  for (int64_t group = 0; group < 2; ++group) {
    EXPECT_EQ(replica_->stats(group).rows, store_->stats(group).rows);
    EXPECT_EQ(state_bytes(replica_->group(group)), 0);
    EXPECT_EQ(policy_bytes(replica_->group(group)), 0);
  }
}

TEST_F(ReplicaTest, FilesOfSeveralStoresMakeOneReplica) {
  auto groups = trained_groups();
  groups[0].eviction = {};
  auto replica = *Replica::create(groups, 2);
  std::vector<uint64_t> all(1000);
  for (size_t i = 0; i < all.size(); ++i) all[i] = i;
  std::vector<float> values(all.size() * 6);
  for (uint32_t server = 0; server < 2; ++server) {
    auto store = *Store::create({.groups = groups});
    std::vector<uint64_t> ids;
    for (uint64_t id : all)
      if (server_of(id, 2) == server) ids.push_back(id);
    std::vector<float> rows(ids.size() * 6);
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(ids[i / 6] + 1);
    ASSERT_TRUE(store->assign(0, ids, rows));
    ASSERT_TRUE(store->save(file("s" + std::to_string(server)), Kind::full).ok());
    ASSERT_TRUE(replica->apply(server, file("s" + std::to_string(server))));
  }
  ASSERT_TRUE(replica->get(0, all, values));
  for (size_t i = 0; i < values.size(); ++i) ASSERT_NEAR(values[i], static_cast<float>(i / 6 + 1), 4);  // bf16
}

TEST_F(ReplicaTest, DamagedFilesAndGapsAreRefusedWhole) {
  train(1);
  ASSERT_TRUE(replica_->apply(0, save(Kind::full, "full")));
  train(2);
  std::string first = save(Kind::delta, "d1");
  train(3);
  std::string second = save(Kind::delta, "d2");
  Status gap = replica_->apply(0, second);
  ASSERT_FALSE(gap.ok());
  EXPECT_NE(gap.error().message.find("does not follow the file before it"), std::string::npos)
      << gap.error().message;

  std::string text = *read_file(first), broken = text;
  broken[broken.size() / 2] = static_cast<char>(broken[broken.size() / 2] ^ 4);
  std::vector<float> before(kUniverse * 6), after(kUniverse * 6);
  std::vector<uint64_t> ids(kUniverse);
  for (uint64_t id = 0; id < kUniverse; ++id) ids[id] = id;
  ASSERT_TRUE(replica_->get(0, ids, before));
  std::ofstream(first, std::ios::binary) << broken;
  Status flipped = replica_->apply(0, first);
  ASSERT_FALSE(flipped.ok());
  EXPECT_EQ(flipped.error().code, ErrorCode::data_loss);
  ASSERT_TRUE(replica_->get(0, ids, after));
  EXPECT_EQ(before, after);

  std::ofstream(first, std::ios::binary) << text;
  ASSERT_TRUE(replica_->apply(0, first));
  ASSERT_TRUE(replica_->apply(0, second));
  EXPECT_EQ(differences(), 0);
}

TEST_F(ReplicaTest, GetsBesideADeltaSeeWholeRows) {
  GroupOptions group{.name = "g", .dim = 32};
  group.init.kind = InitOptions::Kind::zeros;
  auto store = *Store::create({.groups = {group}});
  auto replica = *Replica::create({group});
  std::vector<uint64_t> ids(5000);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = i;
  std::vector<std::string> files;
  for (int version = 1; version <= 12; ++version) {
    std::vector<float> rows(ids.size() * 32, static_cast<float>(version));
    ASSERT_TRUE(store->assign(0, ids, rows));
    files.push_back(file("v" + std::to_string(version)));
    ASSERT_TRUE(store->save(files.back(), version == 1 ? Kind::full : Kind::delta).ok());
  }
  std::atomic<bool> done{false};
  std::thread applier([&] {
    for (const std::string& path : files) EXPECT_TRUE(replica->apply(0, path));
    done = true;
  });
  std::vector<float> rows(26 * 32), last(ids.size(), 0);
  int64_t torn = 0, backwards = 0;
  for (uint64_t k = 0; !done; ++k) {
    auto some = std::span<const uint64_t>(ids).subspan(k * 26 % 4900, 26);
    EXPECT_TRUE(replica->get(0, some, rows));
    for (size_t i = 0; i < 26; ++i) {
      const float* row = &rows[i * 32];
      for (int d = 1; d < 32; ++d) torn += row[d] != row[0] ? 1 : 0;
      backwards += row[0] < last[some[i]] ? 1 : 0;
      last[some[i]] = row[0];
    }
  }
  applier.join();
  EXPECT_EQ(torn, 0);
  EXPECT_EQ(backwards, 0);
}

}  // namespace
}  // namespace tessera::recsys
