// When each action of a schedule's table runs: it starts when its stage is free and its input has come. A
// max-plus recurrence in time proportional to the table; exact for stages and chunks of any times.
//
// Units: seconds. Threads: reentrant.
#pragma once

#include <vector>

#include "schedule/schedule.h"

namespace tessera {

// Of one slot in one piece of the model.
struct PieceTime {
  double forward = 0, backward_input = 0, backward_weight = 0;
  double pair_saves = 0;  // of a forward and a backward that run together, against one after the other
  double total() const { return forward + backward_input + backward_weight; }
};

struct ActionSpan {
  double start = 0, end = 0;
};

// In the table's shape; a pair shares its start and its end. `of_piece`: in the model's order, pieces_of()
// many. `transfer_s`: of one message between stages. Empty for a table that waits for itself.
std::vector<std::vector<ActionSpan>> spans(const Schedule& schedule, const std::vector<PieceTime>& of_piece,
                                           double transfer_s);

// Seconds from the first action to the last, with a forward and a backward time per stage: of tables of one
// chunk. `finish` gets each action's end, in the table's shape, when not null. Infinity for a table that waits
// for itself.
double makespan(const Schedule& schedule, const std::vector<double>& forward_s,
                const std::vector<double>& backward_s, double transfer_s,
                std::vector<std::vector<double>>* finish = nullptr);

}  // namespace tessera
