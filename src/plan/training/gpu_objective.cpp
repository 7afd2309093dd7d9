#include "plan/training/gpu_objective.h"

#include "plan/training/run_cost.h"

namespace tessera::plan {

const char* to_string(Objective objective) {
  switch (objective) {
    case Objective::time:
      return "time";
    case Objective::cost:
      return "cost";
    case Objective::energy:
      return "energy";
    case Objective::rate:
      return "rate";
  }
  return "unknown";
}

Result<Objective> parse_objective(std::string_view text) {
  for (Objective one : {Objective::time, Objective::cost, Objective::energy, Objective::rate})
    if (text == to_string(one)) return one;
  return invalid("objective '{}': expected time, cost, energy or rate (tokens per second and device)", text);
}

double objective_value(Objective objective, const GpuCluster& cluster, double devices, const Goodput& failures,
                       double step_s, double busy) {
  double wall_s = step_s / failures.share;
  if (objective == Objective::time) return wall_s;
  if (objective == Objective::rate) return wall_s * devices;
  devices += failures.spare_hosts * static_cast<double>(cluster.reliability.devices_per_host);
  RunCost cost = run_cost(cluster, devices, wall_s, busy);
  return objective == Objective::cost ? cost.usd : cost.energy_mwh;
}

}  // namespace tessera::plan
