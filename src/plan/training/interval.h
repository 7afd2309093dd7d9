// How far a predicted step may be off: 90 % intervals of software generations, wider on devices whose constants
// no published run has corrected. Data: data/constants/training.toml. Threads: reentrant.
#pragma once

#include "plan/hardware/gpu_cluster.h"
#include "plan/training/software.h"

namespace tessera::plan {

// Relative: the interval is step / (1 + w) to step * (1 + w).
double interval_half_width(const SoftwareGeneration& software, const GpuCluster& cluster);

}  // namespace tessera::plan
