// A training plan as one HTML page that opens offline: the answer, the ranking, every layout by time and money
// and by memory and speed, memory of each stage, the pipeline's timeline, where the time goes, cost and energy,
// and where the figures come from. ECharts is inside (third_party/echarts).
//
// REQUIRES: the plan answers this request. Threads: reentrant.
#pragma once

#include <string>

#include "plan/training/gpu_search.h"

namespace tessera::plan {

std::string training_page(const GpuPlanRequest& request, const GpuPlan& plan);

}  // namespace tessera::plan
