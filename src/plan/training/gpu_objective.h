// What "best" means in a search. Values are comparable within one request, lower is better, and each grows with
// the seconds of a step and with the busy seconds in it: bounds of those give a bound of the value.
//
// A run's wall time counts what failures cost: more devices fail more often. Threads: const, reentrant.
#pragma once

#include <string_view>

#include "core/result.h"
#include "plan/hardware/gpu_cluster.h"
#include "plan/training/goodput.h"

namespace tessera::plan {

// time: wall time of the run. cost: USD. energy: MWh. rate: tokens per second and device.
enum class Objective { time, cost, energy, rate };
const char* to_string(Objective objective);
Result<Objective> parse_objective(std::string_view text);

// Of a step of `step_s` seconds with `busy` of it (0 to 1) in which the multipliers work. `failures`: of a run
// on so many devices; its spare hosts are paid for too.
double objective_value(Objective objective, const GpuCluster& cluster, double devices, const Goodput& failures,
                       double step_s, double busy);

}  // namespace tessera::plan
