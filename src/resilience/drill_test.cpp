#include "resilience/drill.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace tessera::resilience {
namespace {

DrillRow good_row() {
  return {.fault = "kill_worker",
          .detect_s = 0.1,
          .resume_s = 2,
          .steps_redone = 3,
          .source = "memory",
          .recovered = true,
          .weights_equal = true,
          .detail = "worker 2 killed"};
}

TEST(Drill, PassesOnlyWhenEveryRowRecoveredWithEqualWeights) {
  DrillReport report{.hash = "abc", .rows = {good_row(), good_row()}};
  EXPECT_TRUE(report.passed());
  report.rows[1].weights_equal = false;
  EXPECT_FALSE(report.passed());
  report.rows[1] = good_row();
  report.rows[0].recovered = false;
  EXPECT_FALSE(report.passed());
  EXPECT_FALSE(DrillReport{}.passed());
}

TEST(Drill, JsonHasTheRowsWithTheirFields) {
  auto object = nlohmann::json::parse(to_json({.hash = "abc", .rows = {good_row()}}));
  const auto& row = object["rows"][0];
  EXPECT_EQ(row["fault"], "kill_worker");
  EXPECT_EQ(row["detect_s"], 0.1);
  EXPECT_EQ(row["resume_s"], 2.0);
  EXPECT_EQ(row["steps_redone"], 3);
  EXPECT_EQ(row["recovered"], true);
  EXPECT_EQ(row["weights_equal"], true);
}

TEST(Drill, JobThatCannotRunIsAnErrorAndNotAnEqualHash) {
  DrillOptions options;
  options.folder = std::filesystem::temp_directory_path() / "tessera-drill-test";
  options.command = [](const auto&) { return std::vector<std::string>{"false"}; };
  auto report = run_drill(options);
  std::filesystem::remove_all(options.folder);
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.error().message, "worker 0 ended (exit status 1) before it joined the job");
}

}  // namespace
}  // namespace tessera::resilience
