// Every layout of a training run on a GPU cluster: predicted, ranked, and priced. Candidates are timed first;
// memory is computed in the order of the ranking until enough fit, so that no slower candidate is paid for.
//
// Errors: a request that contradicts itself. That nothing fits is a result. Threads: reentrant.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "plan/hardware/gpu_cluster.h"
#include "plan/training/goodput.h"
#include "plan/training/memory.h"
#include "plan/training/run_cost.h"
#include "plan/training/step_time.h"

namespace tessera::plan {

struct GpuPlanRequest {
  Blueprint model;
  GpuCluster cluster;  // with its constants for training
  SoftwareGeneration software;
  TrainingWork work;
  TrainingOptions options;
  FailurePolicy failures = default_policy();
  int64_t gpus = 8;
  double tokens = 0;                     // of the whole run, 0: only the step is planned
  std::optional<TrainingLayout> layout;  // only this one
  int64_t micro_batch = 0;               // 0: tried
  int64_t top = 10;
};

struct GpuPrediction {
  TrainingSetup setup;
  TrainingStep step;
  std::vector<TrainingMemory> memory;  // by stage
  double peak_bytes = 0;               // of the fullest stage, as the device sees it
  bool fits = false;
  Goodput goodput;
  RunCost cost;  // of the whole run with its spare hosts, or of one step when no tokens are given
};

struct GpuInfeasible {
  std::string constraint;
  double needed = 0, available = 0;
  std::string unit;
};

struct GpuPlan {
  std::vector<GpuPrediction> ranked;      // that fit, best first
  std::vector<GpuInfeasible> infeasible;  // when nothing does
  int64_t space = 0;                      // candidates written down
  int64_t evaluated = 0;                  // timed
  int64_t pruned = 0;                     // invalid, or slower than enough that fit
  double seconds = 0;
};

Result<GpuPlan> plan_training(const GpuPlanRequest& request);

// One layout in full, whether it fits or not. Errors: those of validate().
Result<GpuPrediction> predict_training(const GpuPlanRequest& request, const TrainingLayout& layout);

// What takes the largest part of a step that is not computation, or "compute".
std::string bound_by(const TrainingStep& step);

}  // namespace tessera::plan
