#include "recsys_train/served_store.h"

#include <gtest/gtest.h>

#include <numeric>
#include <thread>

namespace tessera::recsys_train {
namespace {

constexpr int64_t kPutDim = 4;

std::unique_ptr<ServedStore> zeros(const ServingOptions& options) {
  recsys::GroupOptions group{.dim = kPutDim};
  group.init.kind = recsys::InitOptions::Kind::zeros;
  group.optimizer = {.kind = recsys::OptimizerOptions::Kind::sgd, .learning_rate = 1};
  return std::make_unique<ServedStore>(*recsys::Store::create({.groups = {group}}), options);
}

// A worker dies with its put under way, and the next one repeats it.
TEST(ServedStore, APutThatComesTwiceAtOnceIsAppliedOnce) {
  std::vector<uint64_t> ids(20000);
  std::iota(ids.begin(), ids.end(), uint64_t{1});
  std::vector<float> rows(ids.size() * kPutDim), gradients(rows.size(), -1);
  for (bool ordered : {false, true}) {
    auto store = zeros({.ordered = ordered});
    ASSERT_TRUE(store->get(0, ids, rows, {}).ok());
    for (uint64_t step = 0; step < 20; ++step) {
      std::vector<std::thread> threads;
      for (int i = 0; i < 3; ++i)
        threads.emplace_back([&] {
          EXPECT_TRUE(
              store->put(0, ids, gradients, {.step = step, .sender = sender_of(0, 0, 1), .sequence = step + 1})
                  .ok());
        });
      for (auto& thread : threads) thread.join();
    }
    ASSERT_TRUE(store->get(0, ids, rows, {.access = recsys::Access::read}).ok());
    for (float value : rows) ASSERT_EQ(value, 20);
  }
}

}  // namespace
}  // namespace tessera::recsys_train
