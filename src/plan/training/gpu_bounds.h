// What no layout of a group can beat: how a search leaves out most of its space and still finds the optimum.
//
// Time. Take away all communication, all bubbles, the exchange of gradients and the optimizer. A layer still
// takes the longer of its kernels and of the host that issues them, and the slowest of pp stages takes at least
// the mean, 1/pp of the whole model. With m micro-batches of a replica a step takes at least
//     m / pp * sum over layers and ends of max(compute, host), forward and backward, + the host's share of a
//     step.
// m * pp follows from the devices alone, so the bound holds for a whole group, whatever its members' depth,
// schedule and sharding. (Kernels beside communication only get slower: contention >= 1.)
//
// Memory. The fullest of pp stages holds at least the mean of the states; activations in flight, gathered
// units and temporaries are left out. Energy follows from time with multipliers that idle; cost and rate from
// time alone. Threads: reentrant.
#pragma once

#include "plan/training/gpu_search.h"
#include "plan/training/memory_terms.h"
#include "plan/training/step_terms.h"

namespace tessera::plan {

// Seconds of a step, at least. `setup.layout`: tp, cp, ep, micro_batch and recompute of the group.
double step_floor_s(const TrainingSetup& setup, const ModelTimes& times, const SoftwareGeneration& software,
                    int64_t gpus);
// Bytes of the fullest device, at least, for any schedule and number of virtual stages of this layout.
double memory_floor_bytes(const TrainingSetup& setup, const ModelMemory& model);

}  // namespace tessera::plan
