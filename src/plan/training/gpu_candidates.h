// The space of layouts that plan_training looks through, in groups whose layers cost the same.
//
// A group fixes tp, cp, ep, micro-batch and recomputation: all that the time and memory of one layer depend on.
// Its members differ in how the rest of the devices is used: depth of the pipeline, virtual stages, replicas or
// shards; and, where the group recomputes nothing, in how many layers of a chunk are recomputed after all. So a
// bound on a group's layers is a bound on every member, and members cost only sums over stages. Members that
// their framework could not start are left out by validate(). Threads: reentrant.
#pragma once

#include <vector>

#include "plan/training/gpu_search.h"

namespace tessera::plan {

struct CandidateGroup {
  int64_t gpus = 0;
  TrainingLayout layers;  // tp, cp, ep, etp, micro_batch, recompute, sequence_parallel
};

// Pipeline schedules of the request, or those that its software runs.
std::vector<PipelineKind> schedules_tried(const GpuPlanRequest& request);

// In the order in which equal candidates rank.
std::vector<CandidateGroup> candidate_groups(const GpuPlanRequest& request);
std::vector<TrainingLayout> group_members(const GpuPlanRequest& request, const CandidateGroup& group);

// All members of all groups.
std::vector<TrainingLayout> training_candidates(const GpuPlanRequest& request);

}  // namespace tessera::plan
