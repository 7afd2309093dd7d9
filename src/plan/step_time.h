// Seconds of one training step: what the trainer does, operation by operation, priced by the cluster.
//
// Per pipeline stage and slot a forward and a backward are summed from products, attention, one-pass operations
// and collectives; the schedule table turns them into the time of all slots; the optimizer and the reductions
// that come once per step follow. Nothing is fitted here: every constant lives in the cluster file.
#pragma once

#include <vector>

#include "layout/layout.h"
#include "plan/cluster.h"

namespace tessera::plan {

// Seconds by cause. `dp` holds what dp and fsdp ranks send: weights gathered, gradients reduced.
struct Seconds {
  double compute = 0, tp = 0, cp = 0, ep = 0, dp = 0, host = 0;
  double total() const { return compute + tp + cp + ep + dp + host; }
  Seconds& operator+=(const Seconds& other);
  friend Seconds operator*(double factor, Seconds s);
};

// Of one slot on one stage, each process with a core to itself.
struct StageTime {
  Seconds forward, backward;
};
StageTime stage_time(const ModelSpec& model, const Work& work, const Layout& layout, const Cluster& cluster,
                     int64_t stage);

struct StepTime {
  double step_s = 0;
  // Wall seconds of the slowest stage; bubble: what it waits for others; pp: transfers between stages that its
  // critical path holds. Sums to step_s.
  Seconds seconds;
  double pp = 0, bubble = 0, optimizer = 0;
};
// `threads`: kernel threads of each process, 0: cores / processes, at least one.
// REQUIRES: validate(model, work, layout, false) holds.
StepTime step_time(const ModelSpec& model, const Work& work, const Layout& layout, const Cluster& cluster,
                   int64_t threads = 0);

}  // namespace tessera::plan
