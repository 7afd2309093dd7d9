#include "serve/expert_exchange.h"

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <random>
#include <thread>

namespace tessera::serve {
namespace {

// Rank r's row i for expert e is (r, e, i): the owner sees whose it is, and marks it; it must come home.
TEST(ExpertExchange, EveryRowReachesTheOwnerOfItsExpertAndComesHome) {
  constexpr int64_t kRanks = 3, kExperts = 6;
  for (uint32_t seed = 0; seed < 20; ++seed) {
    auto groups = make_thread_groups(kRanks);
    auto run = [&](int64_t rank) {
      std::mt19937 random(seed * 10 + static_cast<uint32_t>(rank));
      std::vector<int64_t> first{0};
      for (int64_t e = 0; e < kExperts; ++e) first.push_back(first.back() + (seed % 4 ? random() % 4 : 0));
      at::Tensor rows = at::empty({first.back(), 3}, at::TensorOptions(at::kFloat));
      for (int64_t e = 0, i = 0; e < kExperts; ++e)
        for (; i < first[static_cast<size_t>(e) + 1]; ++i) {
          float values[] = {static_cast<float>(rank), static_cast<float>(e), static_cast<float>(i)};
          std::copy(values, values + 3, rows.mutable_data_ptr<float>() + 3 * i);
        }
      auto exchange = ExpertExchange::plan(*groups[static_cast<size_t>(rank)], first);
      ASSERT_TRUE(exchange.ok()) << exchange.error().message;
      auto received = exchange->dispatch(rows);
      ASSERT_TRUE(received.ok());
      ASSERT_EQ(exchange->first().back(), received->size(0));
      float* value = received->mutable_data_ptr<float>();
      for (size_t e = 0; e + 1 < exchange->first().size(); ++e)
        for (int64_t i = exchange->first()[e]; i < exchange->first()[e + 1]; ++i) {
          EXPECT_EQ(value[3 * i + 1], static_cast<float>(rank * 2 + static_cast<int64_t>(e)));
          value[3 * i + 2] += 100;
        }
      auto home = exchange->collect(*received);
      ASSERT_TRUE(home.ok());
      ASSERT_EQ(home->size(0), first.back());
      for (int64_t i = 0; i < first.back(); ++i) {
        EXPECT_EQ(home->const_data_ptr<float>()[3 * i], static_cast<float>(rank));
        EXPECT_EQ(home->const_data_ptr<float>()[3 * i + 2], static_cast<float>(i + 100));
      }
    };
    std::vector<std::thread> threads;
    for (int64_t rank = 0; rank < kRanks; ++rank) threads.emplace_back(run, rank);
    for (auto& thread : threads) thread.join();
  }
}

}  // namespace
}  // namespace tessera::serve
