// What plan_training found, for people and for programs. The JSON schema is described in docs/plan_gpus.md.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "plan/training/gpu_search.h"

namespace tessera::plan {

// One line a layout, best first: step, rate, MFU, memory, what bounds it and why it loses to the first.
std::string gpu_table(const GpuPlanRequest& request, const GpuPlan& plan);
// The best layout in detail: interval, breakdown, memory by stage, goodput, cost.
std::string gpu_details(const GpuPlanRequest& request, const GpuPrediction& best);
nlohmann::json gpu_json(const GpuPlanRequest& request, const GpuPlan& plan);

}  // namespace tessera::plan
