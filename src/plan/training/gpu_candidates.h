// The space of layouts that plan_training looks through. Threads: reentrant.
#pragma once

#include <vector>

#include "plan/training/gpu_search.h"

namespace tessera::plan {

// Degrees that divide what they split: tp over heads inside one NVLink domain, pp over layers, cp over
// sequences of 32 Ki and more, ep over experts, the rest data-parallel; micro-batches of 1 to 8 sequences; one,
// two, and single-layer chunks; nothing or everything recomputed; optimizer or all parameters sharded.
std::vector<TrainingLayout> training_candidates(const GpuPlanRequest& request);

}  // namespace tessera::plan
