#include "core/progress.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

std::string written(std::FILE* file) {
  std::string text(static_cast<size_t>(std::ftell(file)), '\0');
  std::rewind(file);
  text.resize(std::fread(text.data(), 1, text.size(), file));
  return text;
}

TEST(Progress, CountsAreShortAndKeepThreeDigits) {
  EXPECT_EQ(human_count(0), "0");
  EXPECT_EQ(human_count(999, "B"), "999 B");
  EXPECT_EQ(human_count(1000, "B"), "1.00 kB");
  EXPECT_EQ(human_count(1234567, "tokens"), "1.23 M tokens");
  EXPECT_EQ(human_count(99.96e6, "B"), "100 MB");
}

TEST(Progress, DurationsReadAsClocks) {
  EXPECT_EQ(human_duration(0.52), "0.5 s");
  EXPECT_EQ(human_duration(75.2), "1:15");
  EXPECT_EQ(human_duration(3725), "1:02:05");
  EXPECT_EQ(human_duration(-1), "?");
}

TEST(Progress, AFileGetsPlainLinesWithoutEscapes) {
  std::FILE* file = std::tmpfile();
  {
    Progress progress({.label = "pack", .unit = "B", .total = 100, .line_interval_s = 0, .output = file});
    progress.update(50, "half");
    progress.finish();
    progress.update(60);
  }
  std::string text = written(file);
  std::fclose(file);
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_NE(text.find("pack:  50 %, "), std::string::npos) << text;
  EXPECT_NE(text.find(", half\n"), std::string::npos) << text;
  EXPECT_NE(text.find("pack: 100 B in "), std::string::npos) << text;
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2) << text;
}

TEST(Progress, ManyUpdatesWithinAnIntervalDrawNothing) {
  std::FILE* file = std::tmpfile();
  Progress progress({.label = "train", .unit = "steps", .line_interval_s = 60, .output = file});
  for (int i = 0; i < 100000; ++i) progress.update(i);
  EXPECT_EQ(written(file), "");
  std::fclose(file);
}

}  // namespace
}  // namespace tessera
