// When workers are lost and none replaces them, the job goes on with fewer ranks: which layout?
#pragma once

#include <map>
#include <string>

#include "layout/layout.h"

namespace tessera::resilience {

// For every number of ranks up to the wanted layout's, the best trainable layout of equal work, as text.
// Numbers for which there is none are absent; the wanted layout stands at its own number. Best: what the
// planner predicts to be fastest on `cluster` among those that fit. Without a prediction (no such cluster, or a
// number far below the wanted one): no more pipeline stages and tensor parallelism than needed, state sharded
// (fsdp) rather than copied, experts spread as in the wanted layout; order of axes, schedule and recomputation
// are kept.
std::map<int64_t, std::string> layouts_of_equal_work(const ModelSpec& model, const Work& work,
                                                     const Layout& wanted, const std::string& cluster = "cpu");

}  // namespace tessera::resilience
