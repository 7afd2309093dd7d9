#include "plan/training/run_cost.h"

#include <algorithm>

#include "plan/assignments.h"

namespace tessera::plan {

double mean_device_w(const Power& power, double busy) {
  return power.host_w + power.idle_w + (power.device_w - power.idle_w) * std::clamp(busy, 0.0, 1.0);
}

RunCost run_cost(const GpuCluster& cluster, double devices, double seconds, double busy) {
  return measured_cost(cluster, devices, seconds, mean_device_w(cluster.power, busy));
}

RunCost measured_cost(const GpuCluster& cluster, double devices, double seconds, double watts) {
  const Economy& economy = cluster.economy;
  RunCost cost;
  cost.hours = seconds / 3600;
  double device_hours = devices * cost.hours;
  cost.usd = device_hours * economy.price;
  cost.usd_low = device_hours * economy.price_low, cost.usd_high = device_hours * economy.price_high;
  cost.mean_mw = devices * watts * cluster.power.pue / 1e6;
  cost.peak_mw = devices * cluster.power.all_in_w / 1e6;
  cost.energy_mwh = cost.mean_mw * cost.hours;
  cost.embodied_t = device_hours / economy.lifetime_hours * economy.embodied_kg / 1000;
  cost.co2_t = cost.energy_mwh * economy.grid_kg_per_kwh + cost.embodied_t;
  return cost;
}

Result<GpuCluster> at_site(GpuCluster cluster, const std::string& site) {
  double pue = cluster.power.pue, price = -1;
  Economy& economy = cluster.economy;
  TESSERA_RETURN_IF_ERROR(assign_numbers("--site", site,
                                         {{"pue", &pue, 1, 5},
                                          {"grid_kg_per_kwh", &economy.grid_kg_per_kwh, 0, 2},
                                          {"price", &price},
                                          {"embodied_kg", &economy.embodied_kg},
                                          {"lifetime_hours", &economy.lifetime_hours, 1}}));
  cluster.power.all_in_w *= pue / cluster.power.pue;
  cluster.power.pue = pue;
  if (price >= 0) economy.price_low = economy.price = economy.price_high = price;
  return cluster;
}

}  // namespace tessera::plan
