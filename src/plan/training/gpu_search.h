// Every layout of a training run on a GPU cluster: the best for an objective, predicted and priced.
//
// Groups of layouts are visited in the order of what none of their members can beat (gpu_bounds.h); once enough
// layouts that fit are known and no group left can beat them, the rest is pruned. What is left is that of
// trying every layout, ties included. There pipelines are timed by closed forms; the best are timed again by
// the recurrence over the tables of their schedules, and ranked by it. Of equal layouts the smaller comes
// first.
//
// Errors: a request that contradicts itself. That nothing fits is a result. Threads: reentrant.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "plan/hardware/gpu_cluster.h"
#include "plan/infeasible.h"
#include "plan/training/goodput.h"
#include "plan/training/gpu_objective.h"
#include "plan/training/memory.h"
#include "plan/training/run_cost.h"
#include "plan/training/step_time.h"

namespace tessera::plan {

// What is searched: our own space (gpu_candidates.h) or Calculon's (calculon_space.h).
enum class SearchSpace { own, calculon };

struct GpuPlanRequest {
  Blueprint model;
  GpuCluster cluster;  // with its constants for training
  SoftwareGeneration software;
  TrainingWork work;
  TrainingOptions options;
  FailurePolicy failures = default_policy();
  int64_t gpus = 8;
  int64_t min_gpus = 0;  // halves of `gpus` down to this many are tried too; 0: only `gpus`
  double tokens = 0;     // of the whole run, 0: only the step is planned
  double max_days = 0;   // of the whole run, 0: no limit
  Objective objective = Objective::time;
  SearchSpace space = SearchSpace::own;
  std::optional<TrainingLayout> layout;  // only this one
  std::vector<PipelineKind> schedules;   // tried; empty: those that the software runs
  int64_t micro_batch = 0;               // 0: tried
  int64_t top = 10;
};

struct GpuPrediction {
  TrainingSetup setup;
  std::string switches;  // of Calculon's space beyond the layout
  TrainingStep step;
  std::vector<TrainingMemory> memory;  // by stage
  double peak_bytes = 0;               // of the fullest stage, as the device sees it
  bool fits = false;
  Goodput goodput;
  RunCost cost;  // of the whole run with its spare hosts, or of one step when no tokens are given
};

// Where the candidates of a space went: evaluated + pruned() == space.
struct SearchCounts {
  int64_t space = 0;
  int64_t evaluated = 0;  // finalised: time, memory by class, MFU
  int64_t beaten = 0;     // in groups whose bound is worse than the answer
  int64_t too_large = 0;  // memory, by the bound or by its sum
  int64_t dominated = 0;  // another candidate is never slower and never larger
  int64_t invalid = 0;    // the framework could not start them
  int64_t pruned() const { return beaten + too_large + dominated + invalid; }
};

struct GpuPlan {
  std::vector<GpuPrediction> ranked;   // that fit, best first
  std::vector<Infeasible> infeasible;  // when nothing does
  SearchCounts counts;
  double seconds = 0;
};

Result<GpuPlan> plan_training(const GpuPlanRequest& request);

// One layout in full, whether it fits or not. Errors: those of validate().
Result<GpuPrediction> predict_training(const GpuPlanRequest& request, const TrainingLayout& layout);

// The best of a search by closed forms that are timed again.
size_t num_finalists(const GpuPlanRequest& request);
// Ranks them by the objective, the smaller first where equal; leaves those that end in time, `top` of them.
void rank_finalists(const GpuPlanRequest& request, std::vector<GpuPrediction>& finalists);
// What the objective makes of a prediction; less is better.
double value_of(const GpuPlanRequest& request, const GpuPrediction& one);

// What failures leave of a run on that many devices.
Goodput goodput_of(const GpuPlanRequest& request, int64_t devices);

// What takes the largest part of a step that is not computation, or "compute".
std::string bound_by(const TrainingStep& step);

}  // namespace tessera::plan
