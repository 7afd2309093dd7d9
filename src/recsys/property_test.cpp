#include <gtest/gtest.h>

#include "recsys/testing_oracle.h"

namespace tessera::recsys {
namespace {

std::unique_ptr<Store> make(GroupOptions group, int64_t num_shards = 4) {
  auto store = Store::create({.groups = {std::move(group)}, .num_shards = num_shards});
  EXPECT_TRUE(store.ok()) << (store.ok() ? "" : store.error().message);
  return *std::move(store);
}

GroupOptions plain(OptimizerOptions::Kind kind) {
  GroupOptions group{.dim = 5};
  group.optimizer.kind = kind;
  return group;
}
// Refuses most ids, holds a quarter of the rest.
GroupOptions refusing_and_evicting() {
  GroupOptions group = plain(OptimizerOptions::Kind::adagrad);
  group.admission = {.kind = AdmissionOptions::Kind::probability, .probability = 0.3};
  group.eviction = {.kind = EvictionOptions::Kind::lru, .budget_bytes = 4000};
  return group;
}

TEST(PropertyTest, StoreEqualsAMapWithoutPolicies) {
  for (auto kind : {OptimizerOptions::Kind::sgd, OptimizerOptions::Kind::adagrad}) {
    testing::OracleReport report = testing::Oracle(1, [&] { return make(plain(kind)); }).run(20'000);
    EXPECT_EQ(report.mismatches, 0);
    EXPECT_EQ(report.refused + report.evicted, 0);
  }
}

TEST(PropertyTest, StoreEqualsAMapThatRefusesAndEvicts) {
  testing::OracleReport report = testing::Oracle(2, [] { return make(refusing_and_evicting()); }).run(20'000);
  EXPECT_EQ(report.mismatches, 0);
  EXPECT_GT(report.refused, 1000);
  EXPECT_GT(report.evicted, 100);
}

TEST(PropertyTest, StoreEqualsAMapWhoseRowsExpire) {
  GroupOptions group = plain(OptimizerOptions::Kind::adagrad);
  group.eviction = {.kind = EvictionOptions::Kind::ttl, .ttl_steps = 3};
  testing::OracleReport report = testing::Oracle(3, [&] { return make(group); }).run(20'000);
  EXPECT_EQ(report.mismatches, 0);
  EXPECT_GT(report.evicted, 100);
}

TEST(PropertyTest, APositionalPutIsSeen) {
  testing::Oracle oracle(2, [] { return make(refusing_and_evicting()); });
  oracle.positional_bug = true;
  EXPECT_GT(oracle.run(2'000).mismatches, 0);
}

}  // namespace
}  // namespace tessera::recsys
