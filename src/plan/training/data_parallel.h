// What data-parallel ranks exchange in a step, and how much of it a step waits for. Threads: reentrant.
#pragma once

#include "plan/collectives/collectives.h"
#include "plan/training/setup.h"
#include "plan/training/software.h"

namespace tessera::plan {

// Parameters of one rank's stage.
struct RankParameters {
  double dense = 0, experts = 0;
};

// Seconds of the collectives at the end and at the start of a step, before any hiding.
struct GradientExchange {
  double reduce = 0, gather = 0;
};
GradientExchange gradient_exchange(const TrainingSetup& setup, const GpuCluster& cluster,
                                   const RankParameters& parameters);

// Seconds that fully sharded parameters of one layer take: gathered in forward, gathered and reduced in
// backward.
struct ShardedLayerExchange {
  double forward = 0, backward = 0;
};
ShardedLayerExchange sharded_layer_exchange(const TrainingSetup& setup, const GpuCluster& cluster,
                                            const RankParameters& layer);

// Seconds of the optimizer on one rank: norm of the gradients, update, cast back to the working precision.
double optimizer_s(const TrainingSetup& setup, const GpuCluster& cluster, const RankParameters& parameters);

}  // namespace tessera::plan
