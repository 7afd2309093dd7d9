#include "recsys/wire.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

namespace tessera::recsys {
namespace {

std::vector<uint64_t> round_trip(const std::vector<uint64_t>& ids, size_t* bytes = nullptr) {
  std::vector<std::byte> packed;
  pack_ids(ids, packed);
  if (bytes != nullptr) *bytes = packed.size();
  std::span<const std::byte> in = packed;
  auto back = unpack_ids(in);
  EXPECT_TRUE(back.ok());
  EXPECT_TRUE(in.empty());
  return back.ok() ? *back : std::vector<uint64_t>();
}

TEST(WireTest, AnyIdsComeBack) {
  std::mt19937_64 random(1);
  for (size_t count : {0, 1, 2, 128, 129, 130, 1000}) {
    for (int bits : {8, 20, 33, 64}) {
      std::set<uint64_t> chosen;
      while (chosen.size() < count && (bits > 8 || chosen.size() < 200))
        chosen.insert(bits == 64 ? random() : random() & ((uint64_t{1} << bits) - 1));
      std::vector<uint64_t> ids(chosen.begin(), chosen.end());
      EXPECT_EQ(round_trip(ids), ids);
    }
  }
  EXPECT_EQ(round_trip({0, ~uint64_t{0}}), (std::vector<uint64_t>{0, ~uint64_t{0}}));
}

TEST(WireTest, IdsTakeTheBitsOfTheirDifferences) {
  std::vector<uint64_t> ids;
  for (uint64_t i = 0; i < 12'801; ++i) ids.push_back(i * 1000);  // differences of 999: 10 bits
  size_t bytes = 0;
  EXPECT_EQ(round_trip(ids, &bytes), ids);
  EXPECT_EQ(bytes, 12 + 100 * (1 + 160));
}

TEST(WireTest, SortedIdsKnowTheirPlaces) {
  std::vector<uint64_t> request = {9, 3, 9, 7, 3};
  SortedIds sorted = sort_ids(request);
  EXPECT_EQ(sorted.ids, (std::vector<uint64_t>{3, 7, 9}));
  for (size_t i = 0; i < request.size(); ++i) EXPECT_EQ(sorted.ids[sorted.places[i]], request[i]);
}

TEST(WireTest, RowsComeBackWithinTheUnitOfTheirType) {
  std::mt19937_64 random(2);
  std::normal_distribution<float> normal(0, 0.1f);
  for (auto [type, unit] : {std::pair{RowType::f32, 0.0f}, std::pair{RowType::f16, 0x1p-11f},
                            std::pair{RowType::bf16, 0x1p-8f}, std::pair{RowType::i8, 0.5f / 127}}) {
    std::vector<float> values(16 * 37);
    for (float& value : values) value = normal(random);
    std::vector<std::byte> packed;
    pack_rows(values, {.type = type}, packed);
    std::span<const std::byte> in = packed;
    std::vector<float> back = *unpack_rows(in);
    ASSERT_EQ(back.size(), values.size());
    for (size_t i = 0; i < values.size(); ++i) {
      float largest = std::abs(values[i]);
      if (type == RowType::i8)
        for (size_t j = i / 32 * 32; j < std::min(values.size(), i / 32 * 32 + 32); ++j)
          largest = std::max(largest, std::abs(values[j]));
      EXPECT_LE(std::abs(back[i] - values[i]), largest * unit * 1.0001f + 0x1p-25f) << to_string(type);
    }
  }
}

TEST(WireTest, WithFeedbackNothingIsLostForGood) {
  std::mt19937_64 random(3);
  std::normal_distribution<float> normal(0, 1);
  ErrorFeedback feedback(8);
  std::vector<double> given(8), received(8);
  for (int round = 0; round < 200; ++round) {
    std::vector<float> gradients(16);
    for (float& g : gradients) g = normal(random);
    std::vector<std::byte> packed;
    feedback.pack(std::vector<uint64_t>{5, 6}, gradients, {.type = RowType::i8}, packed);
    std::span<const std::byte> in = packed;
    std::vector<float> sent = *unpack_rows(in);
    for (size_t j = 0; j < 8; ++j) {
      given[j] += gradients[j];
      received[j] += sent[j];
    }
  }
  // What stays behind is one rounding, not two hundred.
  std::vector<float> owed = feedback.owed(5);
  for (size_t j = 0; j < 8; ++j) {
    EXPECT_NEAR(received[j] + owed[j], given[j], 1e-4);
    EXPECT_LT(std::abs(owed[j]), 0.03f);
  }
}

TEST(WireTest, FourTimesFewerBytesThanFloatsAndRawIds) {
  // A batch of 4096 samples with 26 slots of a Zipf stream, as distinct ids of a table of ten million.
  std::mt19937_64 random(4);
  std::vector<uint64_t> request(4096 * 26);
  for (uint64_t& id : request) {
    double u = static_cast<double>(random() >> 11) * 0x1p-53;
    id = static_cast<uint64_t>(std::pow(1e7, u));  // density 1 / id
  }
  SortedIds sorted = sort_ids(request);
  std::vector<float> rows(sorted.ids.size() * 16, 0.1f);
  std::vector<std::byte> packed;
  pack_ids(sorted.ids, packed);
  pack_rows(rows, {.type = RowType::i8}, packed);
  double raw = static_cast<double>(request.size()) * (8 + 16 * 4);
  EXPECT_GT(raw / static_cast<double>(packed.size()), 4);
}

TEST(WireTest, OtherBytesAreRefused) {
  std::vector<uint64_t> ids = {1, 5, 1000};
  std::vector<std::byte> packed;
  pack_ids(ids, packed);
  for (size_t cut = 0; cut < packed.size(); ++cut) {
    std::span<const std::byte> in = std::span<const std::byte>(packed).first(cut);
    EXPECT_FALSE(unpack_ids(in).ok()) << cut;
  }
  std::vector<std::byte> huge(12, std::byte{0xff});
  std::span<const std::byte> in = huge;
  EXPECT_FALSE(unpack_ids(in).ok());
  in = huge;
  EXPECT_FALSE(unpack_rows(in).ok());
}

}  // namespace
}  // namespace tessera::recsys
