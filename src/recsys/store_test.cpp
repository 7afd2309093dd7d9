#include "recsys/store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

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

// Reads take no lock: a writer gives all values of a row one number, then another.
TEST(StoreTest, ReadersBesideAWriterSeeWholeRows) {
  constexpr size_t kDim = 512;
  auto store = make_store({.dim = kDim});
  const std::vector<uint64_t> ids = {7, 8, 9};
  ASSERT_TRUE(store->assign(0, ids, std::vector<float>(ids.size() * kDim, 0.0f)));
  std::atomic<bool> done = false;
  std::thread writer([&] {
    for (int number = 1; !done; ++number)
      (void)store->assign(0, ids, std::vector<float>(ids.size() * kDim, static_cast<float>(number % 1000)))
          .ok();
  });
  std::vector<float> rows(ids.size() * kDim);
  int changes = 0, torn = 0;
  float before = 0;
  auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  for (int reads = 0; (reads < 20000 || changes <= 10) && std::chrono::steady_clock::now() < until; ++reads) {
    if (!store->get(0, ids, rows, Access::read).ok()) break;
    for (size_t row = 0; row < ids.size(); ++row) {
      auto first = rows.begin() + static_cast<std::ptrdiff_t>(row * kDim);
      torn += std::any_of(first, first + kDim, [&](float value) { return value != *first; }) ? 1 : 0;
    }
    changes += rows[0] != std::exchange(before, rows[0]) ? 1 : 0;
  }
  done = true;
  writer.join();
  EXPECT_EQ(torn, 0);
  EXPECT_GT(changes, 10) << "the reader and the writer ran one after the other";
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
