// Which published rows a stated accuracy is about: near full load a first token waits in a queue whose length
// the duration of the benchmark decides. Where the same setup has a published saturated rate, rows that offer
// less than 0.9 of it count; where none is published, all rows do. Threads: a function.
#pragma once

#include <vector>

#include "plan/serving/cases.h"

namespace tessera::plan::serving {

// Of each case.
std::vector<bool> offers_less_than_saturation(const std::vector<ServingCase>& cases);

}  // namespace tessera::plan::serving
