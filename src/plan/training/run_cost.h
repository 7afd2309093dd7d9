// Hours, money, energy and carbon of a whole training run.
//
// Power of a device is its idle power plus the rest of its rating for the share of time in which its
// multipliers work; host and network run all the time; the site adds cooling and losses (PUE) to all of it.
// Carbon: electricity at the site's intensity, and the share of the hardware's embodied carbon that the hours
// use up. Threads: reentrant.
#pragma once

#include <string>

#include "plan/hardware/gpu_cluster.h"

namespace tessera::plan {

struct RunCost {
  double hours = 0;
  double usd = 0, usd_low = 0, usd_high = 0;
  double energy_mwh = 0;
  double co2_t = 0;       // of electricity and hardware together
  double embodied_t = 0;  // of it, of hardware
  double mean_mw = 0;     // at the meter
  double peak_mw = 0;     // that the site must provide
};

// `seconds` of wall time on `devices`, `busy` of them with the multipliers at work.
RunCost run_cost(const GpuCluster& cluster, double devices, double seconds, double busy);
// The same where the mean power of a device with its share of host and network was measured.
RunCost measured_cost(const GpuCluster& cluster, double devices, double seconds, double watts);

// Mean power of one device with its share of host and network, without cooling.
double mean_device_w(const Power& power, double busy);

// A cluster at another site: "pue=1.1,grid_kg_per_kwh=0.05,price=2" over the cluster's own figures. A given
// price is taken as certain (low and high too). What must be provided per device follows the PUE.
Result<GpuCluster> at_site(GpuCluster cluster, const std::string& site);

}  // namespace tessera::plan
