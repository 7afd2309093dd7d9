// The event simulator's part of a search: percentiles of the best by closed form, and with limits on a
// percentile, or under a trace, the verdict. Threads: functions.
#pragma once

#include "plan/serving/search.h"

namespace tessera::plan::serving {

// Simulates the first `request.finalists` of `outcome.ranked`. Where the simulation judges, a layout falls back
// to lower loads until it keeps the limits; `ranked` is then what keeps them, or `infeasible` says what is
// missed.
void simulate_finalists(const SearchRequest& request, SearchOutcome& outcome);

}  // namespace tessera::plan::serving
