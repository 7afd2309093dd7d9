// Published energy, carbon, cost and power, reproduced through the functions that price runs and sites.
#include "plan/facility.h"

#include <gtest/gtest.h>

namespace tessera::plan {
namespace {

constexpr double kHour = 3600, kDay = 86400;

GpuCluster site_with(double pue, double kg_per_kwh, const char* name = "v100") {
  GpuCluster cluster =
      *at_site(*load_gpu_cluster(name), fmt::format("pue={},grid_kg_per_kwh={}", pue, kg_per_kwh));
  cluster.economy.embodied_kg = 0;  // these tables count electricity only
  return cluster;
}

// Patterson et al. 2021 (arXiv 2104.10350), table 4, and the appendix of PaLM (arXiv 2204.02311): chips, days,
// mean watts with host and network, PUE, kg per kWh; MWh and t CO2e.
struct TrainedModel {
  const char* name;
  double devices, days, watts, pue, kg_per_kwh, mwh, tonnes;
};
const TrainedModel kTrained[] = {{"T5-11B", 512, 20, 310, 1.12, 0.545, 85.7, 46.7},
                                 {"Meena", 1024, 30, 289, 1.09, 0.415, 232, 96.4},
                                 {"GShard-600B", 1024, 3.1, 288, 1.09, 0.201, 24.1, 4.8},
                                 {"Switch-1.5T", 1024, 27, 245, 1.10, 0.403, 179, 72.2},
                                 {"GPT-3 175B", 10000, 14.8, 330, 1.10, 0.429, 1287, 552}};

TEST(RunCost, EnergyAndCarbonOfPublishedRunsAreWithinTwoPercent) {
  for (const TrainedModel& run : kTrained) {
    RunCost cost = measured_cost(site_with(run.pue, run.kg_per_kwh), run.devices, run.days * kDay, run.watts);
    EXPECT_NEAR(cost.energy_mwh / run.mwh, 1, 0.02) << run.name;
    EXPECT_NEAR(cost.co2_t / run.tonnes, 1, 0.02) << run.name;
  }
  GpuCluster palm = site_with(1.08, 0.079);
  RunCost first = measured_cost(palm, 6144, 1200 * kHour, 378.5),
          second = measured_cost(palm, 3072, 336 * kHour, 378.5);
  EXPECT_NEAR((first.energy_mwh + second.energy_mwh) / 3436, 1, 0.02);
  EXPECT_NEAR((first.co2_t + second.co2_t) / 271.4, 1, 0.02);
}

// Luccioni et al. (arXiv 2211.02001), table 4, which gives energy and intensity and no hours: Gopher's 1,066
// MWh are those of the devices, OPT's 324 MWh those at the meter. GLaM's 456 MWh and 40.2 t come without an
// intensity.
TEST(RunCost, CarbonOfGopherAndOptFollowsFromTheirEnergyWithinTwoPercent) {
  auto tonnes = [](double pue, double kg_per_kwh, double devices, double device_mwh) {
    double watts = 300, hours = device_mwh * 1e6 / (devices * watts);
    return measured_cost(site_with(pue, kg_per_kwh), devices, hours * kHour, watts).co2_t;
  };
  EXPECT_NEAR(tonnes(1.00, 0.330, 4096, 1066) / 352, 1, 0.02);
  EXPECT_NEAR(tonnes(1.08, 0.330, 4096, 1066) / 380, 1, 0.02);
  EXPECT_NEAR(tonnes(1.00, 0.231, 992, 324 / 1.09) / 70, 1, 0.02);
  EXPECT_NEAR(tonnes(1.09, 0.231, 992, 324 / 1.09) / 76, 1, 0.02);
}

// BLOOM (arXiv 2211.02001): 1,082,990 A100 hours, 433 MWh and 24.7 t of electricity, 11.2 t of manufacture.
TEST(RunCost, BloomsElectricityAndHardwareAreWithinTwoPercent) {
  GpuCluster jean_zay = *at_site(*load_gpu_cluster("a100-80g"), "pue=1,grid_kg_per_kwh=0.057");
  RunCost cost = measured_cost(jean_zay, 384, 1082990.0 / 384 * kHour, 400);
  EXPECT_NEAR(cost.energy_mwh / 433, 1, 0.02);
  EXPECT_NEAR((cost.co2_t - cost.embodied_t) / 24.7, 1, 0.02);
  EXPECT_NEAR(cost.embodied_t / 11.2, 1, 0.02);
}

// Model cards of Llama: device hours at the device's rating, their grid factor from the largest model of each
// card.
TEST(RunCost, LlamasCardsAreWithinTwoPercent) {
  struct Card {
    const char* cluster;
    double million_hours, watts, factor, tonnes;
  };
  for (const Card& card :
       {Card{"a100-80g", 0.184320, 400, 0.423, 31.22}, Card{"a100-80g", 0.368640, 400, 0.423, 62.44},
        Card{"a100-80g", 1.720320, 400, 0.423, 291.42}, Card{"h100", 1.3, 700, 0.425, 390},
        Card{"h100", 6.4, 700, 0.425, 1900}, Card{"h100", 1.46, 700, 0.414, 420},
        Card{"h100", 7.0, 700, 0.414, 2040}, Card{"h100", 30.84, 700, 0.414, 8930},
        Card{"h100", 5.0, 700, 0.387, 1354}, Card{"h100", 2.38, 700, 0.387, 645}}) {
    RunCost cost = measured_cost(site_with(1, card.factor, card.cluster), 1000,
                                 card.million_hours * 1e3 * kHour, card.watts);
    EXPECT_NEAR(cost.co2_t / card.tonnes, 1, 0.02) << card.million_hours;
  }
}

// Changing a site changes what it should: the catalogue's own figures are inputs, not written over.
TEST(RunCost, PueScalesEnergyAndGridScalesItsCarbon) {
  GpuCluster here = *load_gpu_cluster("h100"), cool = *at_site(here, "pue=1.38");
  RunCost a = run_cost(here, 1024, 30 * kDay, 0.6), b = run_cost(cool, 1024, 30 * kDay, 0.6);
  EXPECT_NEAR(b.energy_mwh / a.energy_mwh, 1.38 / 1.15, 1e-9);
  EXPECT_NEAR(b.peak_mw / a.peak_mw, 1.38 / 1.15, 1e-9);
  RunCost green = run_cost(*at_site(here, "grid_kg_per_kwh=0"), 1024, 30 * kDay, 0.6);
  EXPECT_EQ(green.co2_t, green.embodied_t);
  EXPECT_NEAR(a.co2_t - a.embodied_t, a.energy_mwh * 0.38, 1e-9);
  EXPECT_GT(a.peak_mw, a.mean_mw);
  EXPECT_EQ(run_cost(*at_site(here, "price=2"), 8, kHour, 1).usd, 16);
}

// DeepSeek-V3: 2.788 M H800 hours at 2 USD are 5.576 M; Llama 3.1 405B: 30.84 M at 2 are 61.7 M.
TEST(RunCost, BillsFollowFromHours) {
  EXPECT_NEAR(run_cost(*load_gpu_cluster("h800"), 2048, 2.788e6 / 2048 * kHour, 1).usd / 1e6, 5.576, 0.001);
  EXPECT_NEAR(
      run_cost(*at_site(*load_gpu_cluster("h100"), "price=2"), 16384, 30.84e6 / 16384 * kHour, 1).usd / 1e6,
      61.7, 0.1);
}

// MLPerf Training v4.0 power, Llama 2 70B LoRA on hosts of 8 H100 (SMC), DC side: 6.741 kW a node with 1 node
// in 29.1 minutes; with 8 nodes 7.859 kW in 5.4, with 64 5.676 kW in 2.1, of which 2.013 and 0.931 are network
// switches, which are left out here. How busy devices are is taken from the first row; the scaling of the times
// gives the others.
TEST(RunCost, MeasuredPowerOfMlperfIsWithinFifteenPercent) {
  const Power power = load_gpu_cluster("h100")->power;
  auto node_kw = [&](double busy) { return 8 * mean_device_w(power, busy) / 1000; };
  double busy = (6.741 - node_kw(0)) / (node_kw(1) - node_kw(0));
  EXPECT_GT(busy, 0.5);
  EXPECT_LT(busy, 0.8);
  double efficiency8 = 29.1 / (8 * 5.4), efficiency64 = 29.1 / (64 * 2.1);
  EXPECT_NEAR(node_kw(busy * efficiency8) / (7.859 - 2.013), 1, 0.15);
  EXPECT_NEAR(node_kw(busy * efficiency64) / (5.676 - 0.931), 1, 0.15);
  // Energy with the published share of the network: 20.38 and 45.84 MJ.
  auto megajoules = [&](double nodes, double minutes, double efficiency, double network_kw) {
    return nodes * minutes * 60 * (node_kw(busy * efficiency) + network_kw) / 1000;
  };
  EXPECT_NEAR(megajoules(8, 5.4, efficiency8, 2.013) / 20.38, 1, 0.15);
  EXPECT_NEAR(megajoules(64, 2.1, efficiency64, 0.931) / 45.84, 1, 0.15);
}

// 5 GW of utility power at InferenceX's all-in watts: 2.89 M H100, 2.30 M B200, 2.38 M GB200, 1.89 M MI355X; a
// host of H100 fails every 63 s; 43.8 TWh a year; 145 G USD of capital; GB200 owned for 46 G USD a year.
TEST(Facility, FiveGigawattsHoldWhatWasPublished) {
  struct Row {
    const char* name;
    double millions;
  };
  for (const Row& row : {Row{"h100", 2.89}, Row{"b200", 2.30}, Row{"gb200-nvl72", 2.38}, Row{"mi355x", 1.89}})
    EXPECT_NEAR(facility(*load_gpu_cluster(row.name), 5e9)->devices / 1e6, row.millions, 0.01) << row.name;
  Facility h100 = *facility(*load_gpu_cluster("h100"), 5e9);
  EXPECT_NEAR(h100.hosts / 1000, 361, 1);
  EXPECT_NEAR(h100.failures_per_day, 1370, 14);
  EXPECT_NEAR(h100.seconds_between_failures, 63, 0.5);
  EXPECT_NEAR(h100.energy_twh_per_year, 43.8, 0.05);
  Facility gb200 = *facility(*load_gpu_cluster("gb200-nvl72"), 5e9);
  EXPECT_NEAR(gb200.domains, 33000, 330);
  EXPECT_NEAR(gb200.capital_usd / 1e9, 145, 0.5);
  EXPECT_NEAR(gb200.owned_usd_per_year / 1e9, 46, 0.5);
  EXPECT_NEAR(facility(*at_site(*load_gpu_cluster("h100"), "grid_kg_per_kwh=0.4"), 5e9)->co2_mt_per_year, 17.5,
              0.1);
  // Llama 3.1 405B: 30.84 M H100 hours at equal efficiency.
  EXPECT_NEAR(30.84e6 / h100.devices, 10.7, 0.05);
}

TEST(Facility, TheLargestJobKeepsItsGoodputAndTheWholeSiteDoesNot) {
  GpuCluster h100 = *load_gpu_cluster("h100");
  Facility site = *facility(h100, 5e9);
  EXPECT_GT(site.largest_job, 8192);
  EXPECT_LT(site.whole_site_goodput, 0.01);
  EXPECT_EQ(facility(h100, 1e6)->largest_job, facility(h100, 1e6)->devices);
  FailurePolicy fast = *parse_failure_policy("restart_s=30");
  EXPECT_GT(facility(h100, 5e9, fast)->largest_job, 4 * site.largest_job);
}

TEST(Facility, PowerForLessThanOneDeviceIsRefused) {
  auto site = facility(*load_gpu_cluster("h100"), 5);
  ASSERT_FALSE(site.ok());
  EXPECT_NE(site.error().message.find("1730 W"), std::string::npos) << site.error().message;
}

}  // namespace
}  // namespace tessera::plan
