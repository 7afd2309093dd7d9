// Hours, money, energy and carbon of a whole training run.
//
// Power of a device is its idle power plus the rest of its rating for the share of time in which its
// multipliers work; host, network and cooling (all-in power less the rating) run all the time. Carbon:
// electricity at the site's intensity, and the share of the hardware's embodied carbon that the hours use up.
// Threads: reentrant.
#pragma once

#include "plan/hardware/gpu_cluster.h"

namespace tessera::plan {

struct RunCost {
  double hours = 0;
  double usd = 0, usd_low = 0, usd_high = 0;
  double energy_mwh = 0;
  double co2_t = 0;
  double mean_mw = 0, peak_mw = 0;
};

// `seconds` of wall time on `devices`, `busy` of them with the multipliers at work.
RunCost run_cost(const GpuCluster& cluster, double devices, double seconds, double busy);

// Devices that a site of `watts` can feed, and how often one of their hosts fails.
struct SiteCapacity {
  double devices = 0, failures_per_day = 0;
};
SiteCapacity site_capacity(const GpuCluster& cluster, double watts);

}  // namespace tessera::plan
