// A pipeline schedule as a table: for each stage, the actions it runs in order. The same table is planned, run,
// drawn and checked. Slots count the micro-batches of one replica; the global micro-batch is slot * replicas +
// replica.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"
#include "layout/layout.h"

namespace tessera {

struct Action {
  enum Kind { forward, backward } kind = forward;
  int64_t stage = 0;
  int64_t slot = 0;
  bool operator==(const Action&) const = default;
};

struct Schedule {
  int64_t stages = 1, slots = 1;
  std::vector<std::vector<Action>> table;  // [stage][time order]
};

// GPipe: all forwards, then all backwards in the same order of slots (Huang et al. 2019).
// 1F1B: min(stages - stage, slots) warm-up forwards, then one backward after each forward (Narayanan et al.
// 2021). Backwards run in order of slots in both, so gradients are summed in one order.
Schedule make_schedule(PipelineSchedule kind, int64_t stages, int64_t slots);

// Each action once, forward before backward, dependencies between stages free of deadlock, backwards in order
// of slots.
Status validate(const Schedule& schedule);

// Micro-batches whose activations a stage holds at once, at most.
int64_t peak_slots_in_flight(const Schedule& schedule, int64_t stage);

// Seconds from the first action to the last, with a forward and a backward time per stage and a transfer time
// between neighbours: the recurrence over the table. `finish` gets each action's end, in the table's shape,
// when not null.
double makespan(const Schedule& schedule, const std::vector<double>& forward_s,
                const std::vector<double>& backward_s, double transfer_s,
                std::vector<std::vector<double>>* finish = nullptr);

// One line a stage, a column a unit of time: "F0 F1 B0 ...".
std::string draw(const Schedule& schedule);

}  // namespace tessera
