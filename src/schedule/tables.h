// The order of actions on one stage, for each family of schedules. Private to this part: make_schedule() is the
// door. All append to a row and leave its stage to the caller.
#pragma once

#include <vector>

#include "schedule/schedule.h"

namespace tessera::tables {

using Row = std::vector<Action>;

Row gpipe(int64_t slots);
Row one_f_one_b(int64_t stage, int64_t stages, int64_t chunks, int64_t slots);
// ZB-H1: ahead = 1; ZB-H2: ahead = 2.
Row zero_bubble(int64_t stage, int64_t stages, int64_t slots, int64_t ahead);
Row zero_bubble_v(int64_t stage, int64_t stages, int64_t slots);
Row dualpipe(int64_t stage, int64_t stages, int64_t slots);

}  // namespace tessera::tables
