// What plan_training found, for people and for programs. The JSON schema is described in docs/planning.md.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "plan/training/gpu_search.h"

namespace tessera::plan {

// One line a layout, best first: step, rate, MFU, memory, what bounds it and why it loses to the first.
std::string gpu_table(const GpuPlanRequest& request, const GpuPlan& plan);
// The best layout in detail: interval, breakdown, memory by stage, goodput, cost.
std::string gpu_details(const GpuPlanRequest& request, const GpuPrediction& best);
nlohmann::json gpu_json(const GpuPlanRequest& request, const GpuPlan& plan);

// The pieces of these, for other forms of the same answer.
struct TimePart {
  const char* name;
  double TrainingBreakdown::*seconds;
};
std::span<const TimePart> time_parts();
// How much a layout loses by, and the parts of its step that grew most against the best: "+3.1% time: +1.2 s
// bubble". Seconds of fewer devices count as if they were shared by as many as the winner's.
std::string why_it_loses(const GpuPlanRequest& request, const GpuPrediction& loser,
                         const GpuPrediction& winner);
// Figure and where it comes from.
std::vector<std::pair<std::string, std::string>> gpu_provenance(const GpuPlanRequest& request);

}  // namespace tessera::plan
