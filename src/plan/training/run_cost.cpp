#include "plan/training/run_cost.h"

#include <algorithm>

namespace tessera::plan {

RunCost run_cost(const GpuCluster& cluster, double devices, double seconds, double busy) {
  const Power& power = cluster.power;
  const Economy& economy = cluster.economy;
  RunCost cost;
  cost.hours = seconds / 3600;
  double device_hours = devices * cost.hours;
  cost.usd = device_hours * economy.price;
  cost.usd_low = device_hours * economy.price_low, cost.usd_high = device_hours * economy.price_high;
  double around = std::max(0.0, power.all_in_w - power.device_w);
  double mean_w = around + power.idle_w + (power.device_w - power.idle_w) * std::clamp(busy, 0.0, 1.0);
  cost.mean_mw = devices * mean_w / 1e6;
  cost.peak_mw = devices * power.all_in_w / 1e6;
  cost.energy_mwh = cost.mean_mw * cost.hours;
  cost.co2_t = cost.energy_mwh * economy.grid_kg_per_kwh +
               device_hours / economy.lifetime_hours * economy.embodied_kg / 1000;
  return cost;
}

SiteCapacity site_capacity(const GpuCluster& cluster, double watts) {
  SiteCapacity site;
  site.devices = watts / cluster.power.all_in_w;
  site.failures_per_day = site.devices / static_cast<double>(cluster.reliability.devices_per_host) *
                          cluster.reliability.failures_per_1000_node_days / 1000;
  return site;
}

}  // namespace tessera::plan
