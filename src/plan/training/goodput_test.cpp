#include "plan/training/goodput.h"

#include <gtest/gtest.h>

#include <cmath>

#include "plan/training/run_cost.h"

namespace tessera::plan {
namespace {

// planner.md b9: M = 3.093 h; C = 60 s, R = 600 s: 85.25 % at sqrt(2 C M); C = 300, R = 1800: 66.8 %; C = 5,
// R = 180: 95.5 %.
TEST(Goodput, EqualsItsGoldenValuesAtYoungsInterval) {
  struct Row {
    double checkpoint, restart, share;
  };
  for (const Row& row : {Row{60, 600, 0.8525}, Row{300, 1800, 0.668}, Row{5, 180, 0.955}}) {
    FailureModel model{3.093 * 3600, row.checkpoint, row.restart};
    double interval = std::sqrt(2 * row.checkpoint * model.mean_time_between_s);
    EXPECT_NEAR(goodput_at(model, interval), row.share, 6e-4) << row.checkpoint;
    EXPECT_GE(best_goodput(model).share, goodput_at(model, interval));
  }
}

TEST(Goodput, NoIntervalOnAFineGridBeatsTheBest) {
  FailureModel model{7200, 20, 400};
  Goodput best = best_goodput(model);
  for (double interval = 10; interval < 7200; interval *= 1.01)
    EXPECT_LE(goodput_at(model, interval), best.share + 1e-9);
}

// Llama 3 report: 419 unexpected interruptions in 54 days on 16,384 H100, over 90 % of the time effective.
TEST(Goodput, Llama3sInterruptionsAndEffectiveTimeComeOut) {
  GpuCluster h100 = *load_gpu_cluster("h100");
  double state = 405.85e9 * 14 / 16384;
  Goodput goodput = best_goodput(failure_model(h100, 16384, state));
  EXPECT_NEAR(goodput.interruptions_per_day * 54, 419, 0.02 * 419);
  EXPECT_NEAR(goodput.share, 0.90, 0.03);
}

// Meta RSC-1: 6.50 failures per 1,000 node-days give 1.80 h at 16,384 and 0.225 h at 131,072 devices.
TEST(Goodput, MeanTimeBetweenFailuresFollowsRsc1) {
  GpuCluster a100 = *load_gpu_cluster("a100-80g");
  EXPECT_NEAR(failure_model(a100, 16384, 0).mean_time_between_s / 3600, 1.80, 0.01);
  EXPECT_NEAR(failure_model(a100, 131072, 0).mean_time_between_s / 3600, 0.225, 0.002);
}

// energy_cost.md part 8: 5 GW hold 2.89 M H100, 2.30 M B200, 2.38 M GB200, 1.89 M MI355X; 1,370 host failures a
// day with H100.
TEST(RunCost, FiveGigawattsHoldWhatWasPublished) {
  struct Row {
    const char* name;
    double millions;
  };
  for (const Row& row : {Row{"h100", 2.89}, Row{"b200", 2.30}, Row{"gb200-nvl72", 2.38}, Row{"mi355x", 1.89}})
    EXPECT_NEAR(site_capacity(*load_gpu_cluster(row.name), 5e9).devices / 1e6, row.millions, 0.01) << row.name;
  EXPECT_NEAR(site_capacity(*load_gpu_cluster("h100"), 5e9).failures_per_day, 1370, 14);
}

// Llama 3.1 405B: 30.84 M H100 hours; 62 M USD at 2 USD an hour; 8,930 t at 0.414 t per MWh of rated power.
TEST(RunCost, Llama31sBillAndCarbonFollowFromItsHours) {
  GpuCluster h100 = *load_gpu_cluster("h100");
  h100.economy.price = 2;
  h100.economy.grid_kg_per_kwh = 0.414, h100.economy.embodied_kg = 0;
  h100.power.all_in_w = h100.power.device_w = 700;
  RunCost cost = run_cost(h100, 16384, 30.84e6 / 16384 * 3600, 1);
  EXPECT_NEAR(cost.usd / 1e6, 61.7, 0.3);
  EXPECT_NEAR(cost.co2_t, 8930, 0.02 * 8930);
}

}  // namespace
}  // namespace tessera::plan
