#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <thread>

#include "recsys/hash.h"
#include "recsys/store.h"

namespace tessera::recsys {
namespace {

std::unique_ptr<Store> make(GroupOptions group, int64_t num_shards = 1) {
  auto store = Store::create({.groups = {std::move(group)}, .num_shards = num_shards});
  EXPECT_TRUE(store.ok()) << (store.ok() ? "" : store.error().message);
  return *std::move(store);
}
std::vector<uint64_t> range(uint64_t first, uint64_t count) {
  std::vector<uint64_t> ids(count);
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}
void visit(Store& store, const std::vector<uint64_t>& ids) {
  std::vector<float> rows(ids.size() * static_cast<size_t>(store.group(0).dim));
  ASSERT_TRUE(store.get(0, ids, rows));
}
int64_t present(Store& store, const std::vector<uint64_t>& ids) {
  std::vector<uint8_t> found(ids.size());
  store.find(0, ids, found);
  return std::accumulate(found.begin(), found.end(), int64_t{0});
}
// A budget for that many rows of dim 1 in one shard.
EvictionOptions for_rows(EvictionOptions::Kind kind, int64_t rows) {
  GroupOptions group{.dim = 1};
  group.eviction.kind = kind;
  int64_t record = 8 + policy_bytes(group) + row_bytes(group) + state_bytes(group);
  return {.kind = kind, .budget_bytes = rows * (record + 8)};
}

TEST(PolicyTest, ProbabilityAdmitsItsShare) {
  GroupOptions group{.dim = 1};
  group.admission = {.kind = AdmissionOptions::Kind::probability, .probability = 0.3};
  auto store = make(group);
  visit(*store, range(0, 20'000));
  EXPECT_NEAR(static_cast<double>(store->stats(0).rows), 6000, 5 * 65);  // binomial, 5 standard deviations
  EXPECT_EQ(store->stats(0).rows + store->stats(0).refused, 20'000);
}

TEST(PolicyTest, CounterAdmitsAtTheThresholdAndBloomNeverLater) {
  for (auto kind : {AdmissionOptions::Kind::counter, AdmissionOptions::Kind::bloom}) {
    GroupOptions group{.dim = 1};
    group.admission = {.kind = kind, .threshold = 3, .bloom_counters = 1 << 16};
    auto store = make(group);
    std::vector<uint64_t> ids = range(100, 2000);
    visit(*store, ids);
    visit(*store, ids);
    // 2000 x 3 of 65,536 counters are taken: all three of an id by chance in fewer than one of a thousand.
    EXPECT_LE(present(*store, ids), kind == AdmissionOptions::Kind::counter ? 0 : 20);
    visit(*store, ids);
    EXPECT_EQ(present(*store, ids), 2000);
  }
}

TEST(PolicyTest, LruKeepsTheRowsVisitedLast) {
  GroupOptions group{.dim = 1};
  group.eviction = for_rows(EvictionOptions::Kind::lru, 160);
  auto store = make(group);
  visit(*store, range(0, 160));
  store->advance(1);
  visit(*store, range(0, 80));
  store->advance(2);
  visit(*store, range(1000, 80));  // pushes the 80 not visited since step 0
  EXPECT_EQ(present(*store, range(0, 80)), 80);
  EXPECT_EQ(present(*store, range(1000, 80)), 80);
  EXPECT_EQ(present(*store, range(80, 80)), 0);
  EXPECT_EQ(store->stats(0).evicted, 80);
}

TEST(PolicyTest, LfuKeepsTheRowsVisitedMost) {
  GroupOptions group{.dim = 1};
  group.eviction = for_rows(EvictionOptions::Kind::lfu, 160);
  auto store = make(group);
  for (int i = 0; i < 5; ++i) visit(*store, range(0, 100));
  for (uint64_t first = 1000; first < 3000; first += 100) visit(*store, range(first, 100));
  EXPECT_EQ(present(*store, range(0, 100)), 100);
  EXPECT_LE(store->stats(0).rows, 160);
}

TEST(PolicyTest, SmallestNormAndLowestScoreGoFirst) {
  for (auto kind : {EvictionOptions::Kind::l2_norm, EvictionOptions::Kind::score}) {
    GroupOptions group{.dim = 1};
    group.init.kind = InitOptions::Kind::zeros;
    group.eviction = for_rows(kind, 160);
    auto store = make(group);
    std::vector<uint64_t> ids = range(0, 160);
    std::vector<float> sizes(160);
    for (size_t i = 0; i < 160; ++i) sizes[i] = (i % 2 == 0 ? 1.0f : -1.0f) * static_cast<float>(i + 1);
    if (kind == EvictionOptions::Kind::score) {
      visit(*store, ids);
      for (float& size : sizes) size = std::abs(size) - 50;
      EXPECT_EQ(store->set_scores(0, ids, sizes), 160);
    } else {
      ASSERT_TRUE(store->assign(0, ids, sizes));
    }
    visit(*store, range(1000, 1));
    EXPECT_EQ(store->stats(0).evicted, 10);
    EXPECT_EQ(present(*store, range(0, 10)), 0);
    EXPECT_EQ(present(*store, range(10, 150)), 150);
  }
}

TEST(PolicyTest, RowsExpireAfterTheirTimeToLive) {
  GroupOptions group{.dim = 1};
  group.eviction = {.kind = EvictionOptions::Kind::ttl, .ttl_steps = 10};
  auto store = make(group);
  visit(*store, range(0, 50));
  store->advance(10);
  visit(*store, range(0, 20));
  store->advance(11);
  EXPECT_EQ(present(*store, range(0, 50)), 20);
  EXPECT_EQ(store->expire(0), 30);
  EXPECT_EQ(store->stats(0).rows, 20);
}

TEST(PolicyTest, NotFiniteGradientsLeaveTheirRowAlone) {
  for (const char* optimizer : {"sgd", "adagrad", "adagrad-row", "adam", "adamw", "ftrl", "lamb-row"}) {
    GroupOptions group{.dim = 3};
    group.optimizer.kind = *parse_optimizer(optimizer);
    auto store = make(group);
    visit(*store, range(0, 3));
    std::vector<float> before(9), after(9);
    ASSERT_TRUE(store->get(0, range(0, 3), before, Access::read));
    std::vector<float> gradients = {1, 1, NAN, 1, INFINITY, 1, 1, 1, 1};
    auto count = store->put(0, range(0, 3), gradients, {.step = 1});
    EXPECT_EQ(count->not_finite, 2);
    EXPECT_EQ(count->updated, 1);
    ASSERT_TRUE(store->get(0, range(0, 3), after, Access::read));
    EXPECT_TRUE(std::equal(before.begin(), before.begin() + 6, after.begin())) << optimizer;
    EXPECT_NE(before[8], after[8]) << optimizer;
  }
}

TEST(StoreTest, ManyRowsFromManyThreadsAreEachUpdatedOnce) {
  GroupOptions group{.dim = 4};
  group.init.kind = InitOptions::Kind::zeros;
  group.optimizer = {.kind = OptimizerOptions::Kind::sgd, .learning_rate = 1};
  auto store = make(group, 16);
  constexpr uint64_t kIds = 60'000;
  auto work = [&](uint64_t seed) {
    std::vector<uint64_t> ids(5000);
    std::vector<float> rows(ids.size() * 4), ones(ids.size() * 4, -1.0f);
    for (uint64_t first = 0; first < kIds; first += ids.size()) {
      for (size_t i = 0; i < ids.size(); ++i)
        ids[i] = ((first + i) * 7919 + seed * 13) % kIds;  // a permutation
      ASSERT_TRUE(store->get(0, ids, rows));
      ASSERT_EQ(store->put(0, ids, ones)->updated, 5000);
    }
  };
  std::vector<std::thread> crew;
  for (uint64_t t = 0; t < 4; ++t) crew.emplace_back(work, t);
  for (std::thread& thread : crew) thread.join();
  std::vector<float> rows(kIds * 4);
  ASSERT_TRUE(store->get(0, range(0, kIds), rows, Access::read));
  EXPECT_EQ(std::count(rows.begin(), rows.end(), 4.0f), static_cast<std::ptrdiff_t>(rows.size()));
  EXPECT_EQ(store->stats(0).rows, static_cast<int64_t>(kIds));
}

TEST(StoreTest, IdsOfOneServerSpreadOverItsShards) {
  auto store = make({.dim = 1}, 64);
  std::vector<uint64_t> mine;
  for (uint64_t id = 0; mine.size() < 6400; ++id)
    if (server_of(id, 16) == 3) mine.push_back(id);
  std::vector<int> per_shard(64);
  for (uint64_t id : mine) ++per_shard[mix64(id) >> 58];
  // 100 ids per shard; 6 standard deviations.
  EXPECT_GT(*std::min_element(per_shard.begin(), per_shard.end()), 40);
}

}  // namespace
}  // namespace tessera::recsys
