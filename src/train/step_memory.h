// Bytes of live tensors of one rank over its steps: all of them, and those that a step itself needs, which is
// what a plan predicts. What lives when a step begins beyond weights and optimizer states is copies that
// somebody still writes or sends: snapshots and checkpoints. Threads: one at a time; the counter is the
// process's.
#pragma once

#include "model/unit.h"
#include "train/trainer.h"

namespace tessera::train {

class StepMemory {
 public:
  // A step of these units begins.
  void begin(const model::Units& units);
  // The peak since begin() counts. Call where it may have been reached, once more after the last tensor is
  // made.
  void note();
  // So far, without gradients_peak.
  RankMemory so_far(const model::Units& units) const;

 private:
  int64_t copies_ = 0, peak_ = 0, step_peak_ = 0;
};

}  // namespace tessera::train
