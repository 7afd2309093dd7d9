// A pipeline schedule as a table: for each stage, the actions it runs in order. The same table is planned, run,
// drawn and checked. Slots count the micro-batches of one replica; the global micro-batch is slot * replicas +
// replica.
//
// A backward is whole, or apart: first for the inputs, whose gradient the stage before waits for, later for the
// weights, for which nobody waits. DualPipe also runs a forward and a backward together, so that communication
// of one hides behind computation of the other.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"
#include "layout/layout.h"
#include "schedule/pipeline_kind.h"

namespace tessera {

struct Action {
  enum Kind { forward, backward, backward_input, backward_weight } kind = forward;
  int64_t stage = 0;
  int64_t slot = 0;
  int64_t chunk = 0;    // of the stage
  bool paired = false;  // a forward that runs together with the backward after it, or that backward
  bool operator==(const Action&) const = default;
};

struct Schedule {
  int64_t stages = 1, slots = 1;
  std::vector<std::vector<Action>> table;  // [stage][time order]
  PipelineKind kind = PipelineKind::one_f_one_b;
  int64_t chunks = 1;  // of the model on a stage

  // Whether that chunk of a stage works on the slot: DualPipe's copies share the slots out, the first half
  // enters at stage 0, the second at the last stage.
  bool runs(int64_t chunk, int64_t slot) const;
};

// Whether there is a table of the kind; V-Half and V-Min have none.
bool has_table(PipelineKind kind);
// Interleaved: stages divide slots. DualPipe: an even number of stages, an even number of at least twice as
// many slots. Errors name the two figures.
Status check_table(PipelineKind kind, int64_t stages, int64_t chunks, int64_t slots);

// Tables:
// GPipe: all forwards, then all backwards in the same order of slots (Huang et al. 2019).
// 1F1B: min(stages - stage, slots) warm-up forwards, then one backward after each forward; interleaved, chunks
// take turns in rounds of `stages` slots (Narayanan et al. 2021).
// ZB-H1, ZB-H2, ZB-V: Qi et al. 2023, sections 2 and 6. DualPipe: DeepSeek-V3 report, figure 5.
// Backwards of a chunk run in order of slots in all, so gradients are summed in one order.
// REQUIRES: has_table(kind), check_table(...) holds, chunks = chunks_of(kind, ...).
Schedule make_schedule(PipelineKind kind, int64_t stages, int64_t chunks, int64_t slots);
// Those that the trainer runs.
Schedule make_schedule(PipelineSchedule kind, int64_t stages, int64_t slots);

// Each action once, forward before backward before weights, dependencies between stages free of deadlock,
// backwards in order of slots.
Status validate(const Schedule& schedule);

// Micro-batches whose activations a stage holds at once, at most, all chunks together.
int64_t peak_slots_in_flight(const Schedule& schedule, int64_t stage);

// What a stage holds at one moment, by chunk: activations kept for a backward, and what a weight gradient that
// was put off needs (inputs of products and gradients of their outputs).
struct HeldSlots {
  std::vector<int64_t> kept, deferred;
  bool operator==(const HeldSlots&) const = default;
};
// The moments at which memory may be at its peak: no other moment of the step holds as much of everything.
std::vector<HeldSlots> peaks_in_flight(const Schedule& schedule, int64_t stage);

// One line a stage: "F0 F1 B0 ...", I and W where a backward is apart, a chunk after the first behind a dot,
// pairs joined by '+'.
std::string draw(const Schedule& schedule);

}  // namespace tessera
