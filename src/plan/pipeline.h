// How long a pipeline takes when its processes share cores. A stage that waits leaves its core to the others,
// so neither "everything is slower by processes / cores" nor the plain recurrence is right: the bubble of a
// pipeline on a host with fewer cores than processes is filled with other stages' work.
//
// The table of schedule/ is run as a fluid: at any moment each running stage advances at the speed that the
// cluster measured for so many running processes. With a core per process it equals schedule::makespan.
#pragma once

#include <vector>

#include "plan/cluster.h"
#include "schedule/schedule.h"

namespace tessera::plan {

// Seconds until the last action ends. forward_s, backward_s: per stage, of one process with its own core;
// `processes_per_stage` compute in lockstep. Infinity for a table that deadlocks.
double shared_makespan(const Schedule& schedule, const std::vector<double>& forward_s,
                       const std::vector<double>& backward_s, double transfer_s, int64_t processes_per_stage,
                       const Cluster& cluster);

}  // namespace tessera::plan
