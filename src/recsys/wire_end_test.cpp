#include "recsys/wire_end.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace tessera::recsys {
namespace {

constexpr int64_t kDim = 5;

std::vector<float> numbers(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<float> out(count);
  for (float& value : out) value = static_cast<float>(random() % 2000) * 0.001f - 1;
  return out;
}

// A server's end: the row of an id is a function of the id.
std::vector<std::byte> answer_of(std::span<const std::byte> request, RowType type) {
  auto ids = *unpack_ids(request);
  std::vector<float> rows;
  for (uint64_t id : ids)
    for (int64_t i = 0; i < kDim; ++i)
      rows.push_back(static_cast<float>(id % 997) + static_cast<float>(i) * 0.125f);
  std::vector<std::byte> answer;
  pack_rows(rows, {.type = type}, answer);
  return answer;
}

TEST(WireEndTest, RowsComeBackInTheOrderOfTheIds) {
  WireEnd wire({.on = true}, {kDim});
  std::mt19937_64 random(3);
  std::vector<uint64_t> ids(700);
  for (uint64_t& id : ids) id = random() % 300 << 40 | random() % 3;  // with repetitions
  std::vector<std::byte> request;
  auto sorted = wire.ask(ids, request);
  EXPECT_LT(sorted.ids.size(), ids.size());
  std::vector<float> rows(ids.size() * kDim);
  ASSERT_TRUE(wire.take(0, sorted, answer_of(request, RowType::f32), rows));
  for (size_t i = 0; i < ids.size(); ++i)
    ASSERT_EQ(rows[i * kDim + 2], static_cast<float>(ids[i] % 997) + 0.25f) << i;
  EXPECT_EQ(wire.count().raw_bytes, static_cast<int64_t>(ids.size() * (8 + 4 * kDim)));
}

TEST(WireEndTest, NoIdsAreARequestToo) {
  WireEnd wire({.on = true}, {kDim});
  std::vector<std::byte> request;
  auto sorted = wire.ask({}, request);
  std::vector<float> rows;
  ASSERT_TRUE(wire.take(0, sorted, answer_of(request, RowType::i8), rows));
  ASSERT_TRUE(wire.give(0, {}, {}, request));
}

TEST(WireEndTest, DamagedAnswersAreAnErrorAndNothingElse) {
  WireEnd wire({.on = true, .rows = RowType::i8}, {kDim});
  std::vector<uint64_t> ids = {9, 4, 4, 1u << 30, 77};
  std::vector<std::byte> request;
  auto sorted = wire.ask(ids, request);
  const auto whole = answer_of(request, RowType::i8);
  std::vector<float> rows(ids.size() * kDim);
  for (size_t cut = 0; cut < whole.size(); ++cut)
    EXPECT_FALSE(wire.take(0, sorted, std::span(whole).first(cut), rows).ok()) << cut;
  std::mt19937_64 random(11);
  for (int i = 0; i < 2000; ++i) {
    auto damaged = whole;
    damaged[random() % damaged.size()] ^= static_cast<std::byte>(1u << random() % 8);
    (void)wire.take(0, sorted, damaged, rows).ok();  // values may differ; memory may not
  }
  auto longer = whole;
  longer.push_back(std::byte{1});
  EXPECT_FALSE(wire.take(0, sorted, longer, rows).ok());
}

TEST(WireEndTest, DamagedRequestsAreAnErrorAndNothingElse) {
  WireEnd wire({.on = true, .gradients = RowType::i8}, {kDim});
  std::vector<uint64_t> ids(300);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = i * i * 977;
  std::vector<std::byte> whole;
  ASSERT_TRUE(wire.give(0, ids, numbers(ids.size() * kDim, 5), whole));
  std::mt19937_64 random(13);
  for (int i = 0; i < 3000; ++i) {
    auto damaged = whole;
    damaged[random() % damaged.size()] ^= static_cast<std::byte>(1u << random() % 8);
    damaged.resize(i % 2 == 0 ? damaged.size() : random() % damaged.size());
    std::span<const std::byte> in = damaged;
    if (!unpack_ids(in).ok()) continue;
    (void)unpack_rows(in).ok();
  }
}

TEST(WireEndTest, AnIdThatComesTwiceIsNotMerged) {
  WireEnd wire({.on = true}, {kDim});
  const uint64_t ids[] = {3, 8, 3};
  std::vector<std::byte> request;
  EXPECT_FALSE(wire.give(0, ids, numbers(3 * kDim, 1), request));
  EXPECT_TRUE(request.empty());
  EXPECT_EQ(wire.count().bytes, 0);
}

// What rounding takes is given the next time: over many puts nothing of a gradient is lost.
TEST(WireEndTest, RoundingErrorsDoNotAddUp) {
  for (bool feedback : {true, false}) {
    WireEnd wire({.on = true, .gradients = RowType::i8, .error_feedback = feedback}, {kDim});
    const std::vector<uint64_t> ids = {50, 2, 900};
    std::vector<double> sent(ids.size() * kDim, 0);
    const auto gradients = numbers(ids.size() * kDim, 21);
    constexpr int kPuts = 400;
    for (int put = 0; put < kPuts; ++put) {
      std::vector<std::byte> request;
      ASSERT_TRUE(wire.give(0, ids, gradients, request));
      std::span<const std::byte> in = request;
      auto keys = *unpack_ids(in);
      auto values = *unpack_rows(in);
      for (size_t i = 0; i < ids.size(); ++i) {
        const auto at = static_cast<size_t>(std::find(keys.begin(), keys.end(), ids[i]) - keys.begin());
        for (size_t d = 0; d < kDim; ++d) sent[i * kDim + d] += values[at * kDim + d];
      }
    }
    double worst = 0;
    for (size_t i = 0; i < sent.size(); ++i)
      worst = std::max(worst, std::abs(sent[i] - kPuts * static_cast<double>(gradients[i])));
    if (feedback)
      EXPECT_LT(worst, 0.02);
    else
      EXPECT_GT(worst, 0.1);
  }
}

}  // namespace
}  // namespace tessera::recsys
