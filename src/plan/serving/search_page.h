// The outcome of a search as one HTML page that opens offline: every point and the Pareto front, memory, the
// time of a decode step, cost and energy, and the table of the best. ECharts is inside (third_party/echarts).
#pragma once

#include <string>

#include "plan/serving/search.h"

namespace tessera::plan::serving {

std::string search_page(const SearchRequest& request, const SearchOutcome& outcome, int64_t top);

}  // namespace tessera::plan::serving
