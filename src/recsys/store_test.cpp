#include "recsys/store.h"

#include <gtest/gtest.h>

namespace tessera::recsys {
namespace {

std::unique_ptr<Store> make_store(GroupOptions group) {
  auto store = Store::create({.groups = {std::move(group)}});
  EXPECT_TRUE(store.ok()) << (store.ok() ? "" : store.error().message);
  return *std::move(store);
}

TEST(StoreTest, GradientOfAnAbsentIdTouchesNoOtherRow) {
  GroupOptions group{.dim = 2};
  group.init.kind = InitOptions::Kind::zeros;
  group.optimizer = {.kind = OptimizerOptions::Kind::sgd, .learning_rate = 1};
  auto store = make_store(group);
  std::vector<float> rows(4);
  ASSERT_TRUE(store->get(0, std::vector<uint64_t>{1, 3}, rows));
  PutCount count =
      *store->put(0, std::vector<uint64_t>{1, 2, 3}, std::vector<float>{1, 1, 2, 2, 3, 3}, {.step = 1});
  EXPECT_EQ(count.updated, 2);
  EXPECT_EQ(count.absent, 1);
  ASSERT_TRUE(store->get(0, std::vector<uint64_t>{1, 3}, rows, Access::read));
  EXPECT_EQ(rows, (std::vector<float>{-1, -1, -3, -3}));
}

TEST(StoreTest, AnUntouchedIdReadsAsItsFirstGetWill) {
  for (RowType type : {RowType::f32, RowType::bf16, RowType::f16, RowType::i8}) {
    auto store = make_store({.dim = 7, .row_type = type});
    std::vector<uint64_t> ids = {0, 1, ~0ull, 1ull << 63};
    std::vector<float> before(28), first(28);
    ASSERT_TRUE(store->get(0, ids, before, Access::read));
    EXPECT_EQ(store->stats(0).rows, 0);
    ASSERT_TRUE(store->get(0, ids, first));
    EXPECT_EQ(before, first) << to_string(type);
    EXPECT_EQ(store->stats(0).rows, 4);
  }
}

TEST(StoreTest, CoalesceSumsPerId) {
  Coalesced merged = coalesce(std::vector<uint64_t>{5, 9, 5}, std::vector<float>{1, 2, 3, 4, 10, 20}, 2);
  EXPECT_EQ(merged.ids, (std::vector<uint64_t>{5, 9}));
  EXPECT_EQ(merged.gradients, (std::vector<float>{11, 22, 3, 4}));
}

TEST(StoreTest, UnknownNamesOfferTheNearest) {
  EXPECT_NE(parse_optimizer("adagrad-rows").error().message.find("did you mean 'adagrad-row'"),
            std::string::npos);
  auto store = make_store({.name = "user"});
  EXPECT_NE(store->group_named("usr").error().message.find("user"), std::string::npos);
}

}  // namespace
}  // namespace tessera::recsys
