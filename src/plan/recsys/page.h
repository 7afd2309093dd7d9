// One HTML page of a recommender's plan, in the manner of training and serving: every layout by rate and money,
// what each resource needs, memory, what staleness buys, cost and energy. Threads: reentrant.
#pragma once

#include <string>

#include "plan/recsys/search.h"

namespace tessera::plan::recsys {

std::string recsys_page(const Request& request, const Outcome& outcome);

}  // namespace tessera::plan::recsys
