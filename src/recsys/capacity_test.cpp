#include "recsys/capacity.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace tessera::recsys {
namespace {

TEST(CapacityTest, AHundredTrillionParametersAreAddressedAndTouchedRowsReadBack) {
  auto report = measure_capacity({.touched_rows = 60'000, .measured_rows = 20'000, .rounds = 1});
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(report->ids, 781'250'000'000);
  EXPECT_EQ(report->touched_rows, 60'000);  // no two ids shared a row
  EXPECT_EQ(report->readback_errors, 0);
  EXPECT_EQ(report->samples_per_s.size(), 5u);
  EXPECT_DOUBLE_EQ(report->virtual_bytes, 781.25e9 * 140);
  EXPECT_LT(report->resident_bytes, 60'000 * 200);
}

TEST(CapacityTest, RowsBeyondTheMemoryReadBackFromDisk) {
  const std::string folder = std::filesystem::temp_directory_path();
  CapacityOptions options{.touched_rows = 60'000, .measured_rows = 20'000, .rounds = 1};
  options.memory_bytes = 2'000'000;
  options.disk.folder = folder;
  auto report = measure_capacity(options);
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(report->touched_rows, 60'000);
  EXPECT_LT(report->resident_rows, 20'000);
  EXPECT_GT(report->disk_bytes, 40'000 * 136);
  EXPECT_EQ(report->readback_errors, 0);
  options.disk.folder = "";
  EXPECT_FALSE(measure_capacity(options).ok());
}

TEST(CapacityTest, TooLittleMemoryIsSaidBeforehand) {
  auto report = measure_capacity({.touched_rows = 1'000'000'000'00});
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.error().code, ErrorCode::resource_exhausted);
}

TEST(CapacityTest, CountsHaveUnits) {
  EXPECT_EQ(*parse_count("100T"), 1e14);
  EXPECT_EQ(*parse_count("6.25T"), 6.25e12);
  EXPECT_EQ(*parse_count("1e6"), 1e6);
  for (const char* text : {"", "T", "-1T", "12X", "1 T"}) EXPECT_FALSE(parse_count(text).ok()) << text;
}

}  // namespace
}  // namespace tessera::recsys
