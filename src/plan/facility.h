// What a site of so many watts can hold, cost and emit, how often something fails there, and how large one job
// may grow before failures eat it. Threads: reentrant.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "plan/training/goodput.h"
#include "plan/training/run_cost.h"

namespace tessera::plan {

struct Facility {
  double watts = 0;  // at the meter
  double devices = 0, hosts = 0;
  double domains = 0;                  // innermost tiers of links: hosts of 8, racks of 72
  double peak_bf16 = 0, peak_fp8 = 0;  // FLOP/s of all
  double failures_per_day = 0, seconds_between_failures = 0;
  double spare_hosts = 0;  // within the hosts
  double largest_job = 0;  // devices of one synchronous job that keeps `target_goodput`
  double target_goodput = 0;
  double whole_site_goodput = 0;    // of one synchronous job on everything
  double energy_twh_per_year = 0;   // at full load
  double co2_mt_per_year = 0;       // of electricity
  double embodied_mt_per_year = 0;  // of hardware, over its lifetime
  double capital_usd = 0;
  double owned_usd_per_year = 0, rented_usd_per_year = 0;  // owned: 0 where no price is known
};

// Errors: too little power for one device.
Result<Facility> facility(const GpuCluster& cluster, double watts,
                          const FailurePolicy& policy = default_policy());

std::string facility_text(const GpuCluster& cluster, const Facility& site);
nlohmann::json facility_json(const GpuCluster& cluster, const Facility& site);

}  // namespace tessera::plan
