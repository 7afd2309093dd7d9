#include "core/core.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <random>

namespace tessera {
namespace {

TEST(Result, CarriesValueOrError) {
  Result<int> good = 3;
  Result<int> bad = invalid("tp={} does not divide {}", 3, 8);
  EXPECT_EQ(*good, 3);
  EXPECT_FALSE(bad.ok());
  EXPECT_EQ(bad.error().message, "tp=3 does not divide 8");
}

TEST(Nearest, OffersTheMistypedWordOnly) {
  EXPECT_EQ(nearest("lerning_rate", {"learning_rate", "layers"}), "learning_rate");
  EXPECT_EQ(nearest("xyzzy", {"learning_rate", "layers"}), "");
}

TEST(File, AtomicWriteThenReadGivesTheSameBytes) {
  auto path = std::filesystem::temp_directory_path() / fmt::format("tessera-core-{}", ::getpid());
  ASSERT_TRUE(write_file_atomically(path, "abc").ok());
  EXPECT_EQ(*read_file(path), "abc");
  std::filesystem::remove(path);
  EXPECT_EQ(read_file(path).error().code, ErrorCode::not_found);
}

TEST(File, FullDiskIsResourceExhaustedAndKeepsNothing) {
  Status status = write_file_atomically("/dev/full/x", "abc");
  EXPECT_FALSE(status.ok());
}

TEST(ExactSum, AnyOrderAndAnyPartitionGiveTheSameBits) {
  std::mt19937_64 random(7);
  std::vector<double> values;
  for (int i = 0; i < 2000; ++i)
    values.push_back(
        std::ldexp(std::normal_distribution<double>()(random), static_cast<int>(random() % 200) - 100));
  ExactSum forward;
  for (double value : values) forward.add(value);
  std::shuffle(values.begin(), values.end(), random);
  ExactSum left, right;
  for (size_t i = 0; i < values.size(); ++i) (i < 700 ? left : right).add(values[i]);
  left.merge(right);
  EXPECT_EQ(forward.value(), left.value());
}

TEST(ExactSum, CancellationLeavesTheSmallTerm) {
  ExactSum sum;
  for (double value : {1e300, 1e-300, -1e300}) sum.add(value);
  EXPECT_EQ(sum.value(), 1e-300);
  sum.add(-2e-300);
  EXPECT_EQ(sum.value(), 1e-300 - 2e-300);
}

TEST(ExactSum, NotFiniteWins) {
  ExactSum sum;
  sum.add(1);
  sum.add(INFINITY);
  EXPECT_EQ(sum.value(), INFINITY);
  sum.add(-INFINITY);
  EXPECT_TRUE(std::isnan(sum.value()));
}

}  // namespace
}  // namespace tessera
