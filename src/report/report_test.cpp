#include "report/report.h"

#include <gtest/gtest.h>

#include <cmath>

#include "report/html.h"
#include "report/line_chart.h"
#include "report/measured.h"

namespace tessera::report {
namespace {

std::vector<Json> lines(const std::vector<std::pair<int, int>>& steps) {
  std::vector<Json> list;
  for (auto [step, generation] : steps)
    list.push_back({{"step", step}, {"generation", generation}, {"seconds", step + 100.0 * generation}});
  return list;
}

TEST(Measured, StepDoneAgainCountsOnceAndTheFirstIsLost) {
  auto metrics = lines({{0, 0}, {1, 0}, {2, 0}, {1, 1}, {2, 1}, {3, 1}});
  Steps steps = sort_steps(metrics);
  ASSERT_EQ(steps.kept.size(), 4u);
  EXPECT_EQ((*steps.kept[1])["generation"], 1);
  EXPECT_EQ(steps.redone.size(), 2u);
}

TEST(Measured, MedianLeavesOutTheFirstTwoStepsOfAGeneration) {
  auto metrics = lines({{0, 0}, {1, 0}, {2, 0}, {3, 0}, {4, 1}, {5, 1}, {6, 1}});
  EXPECT_EQ(steady_median(sort_steps(metrics), "seconds"), 3.0);  // of 2, 3 and 106
  EXPECT_FALSE(steady_median(sort_steps(metrics), "absent").has_value());
}

TEST(Measured, LayoutOfThePlanIsFoundWhateverItsOrder) {
  Json planned = {{"dp", 1}, {"fsdp", 2}, {"tp", 1}, {"pp", 2}, {"cp", 1}, {"ep", 2}, {"schedule", "1f1b"}};
  EXPECT_TRUE(same_layout(planned, "pp=2,ep=2,fsdp=2"));
  EXPECT_FALSE(same_layout(planned, "pp=2,ep=2,fsdp=2,schedule=gpipe"));
  EXPECT_FALSE(same_layout(planned, "fsdp=4,ep=2"));
  EXPECT_FALSE(same_layout(planned, "no layout"));
}

TEST(Html, EscapesWhatWouldLeaveTextOrScript) {
  EXPECT_EQ(escape("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
  EXPECT_EQ(escape_script("{\"a\":\"</script>\"}"), "{\"a\":\"\\u003c/script>\"}");
}

TEST(Html, NumbersReadLikeThoseOfAPerson) {
  EXPECT_EQ(number_text(1234567), "1,234,567");
  EXPECT_EQ(number_text(-1234), "-1,234");
  EXPECT_EQ(number_text(0.125), "0.125");
  EXPECT_EQ(seconds_text(0.0125), "12.5 ms");
  EXPECT_EQ(seconds_text(75), "1:15 min");
  EXPECT_EQ(seconds_text(3725), "1:02 h");
  EXPECT_EQ(bytes_text(1536), "1.5 KiB");
}

TEST(Axis, TicksAreRoundAndInside) {
  EXPECT_EQ(axis_ticks(0, 100, 5), (std::vector<double>{0, 20, 40, 60, 80, 100}));
  for (double width : {1e-9, 0.37, 1.0, 6.2, 1e7}) {
    auto ticks = axis_ticks(-width / 3, width, 6);
    EXPECT_GE(ticks.size(), 3u);
    EXPECT_LE(ticks.size(), 9u);
    EXPECT_GE(ticks.front(), -width / 3);
    EXPECT_LE(ticks.back(), width);
  }
}

TEST(Chart, OnePointAndEqualValuesStillDraw) {
  LineChart chart{.x_name = "step", .y_name = "loss"};
  chart.series.push_back({"one", {{3, 2}}});
  std::string html = line_chart_html(chart);
  EXPECT_EQ(html.find("nan"), std::string::npos);
  EXPECT_EQ(html.find("inf"), std::string::npos);
}

}  // namespace
}  // namespace tessera::report
