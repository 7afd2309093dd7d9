// Peak bytes of live tensors of one rank, by class. Whether a layout fits is decided before a cluster is
// rented, so the peak is found by walking the very schedule table that the trainer runs: what each forward
// keeps, what each backward frees, what gradients wait for their owners, what a piece of a block needs at once.
#pragma once

#include <vector>

#include "layout/layout.h"

namespace tessera::plan {

// At the moment of the peak; the classes sum to it.
struct MemoryByClass {
  double weights = 0;    // working precision, this rank's shard
  double gathered = 0;   // units whole for use: the one in use and the one prefetched (where fsdp shards them)
  double optimizer = 0;  // two moments and, unless the working weights are float32, the master
  double gradients = 0;  // leaves, leaves under way, accumulators
  double activations = 0;  // kept from forward to backward, all slots in flight
  double workspace = 0;    // temporaries of the piece that runs
  double total() const { return weights + gathered + optimizer + gradients + activations + workspace; }
};

// Of a rank of pipeline stage `stage`. REQUIRES: validate(model, work, layout, false) holds.
MemoryByClass stage_memory(const ModelSpec& model, const Work& work, const Layout& layout, int64_t stage);
// Micro-batches whose activations the stage holds at once, from the schedule table.
int64_t slots_in_flight(const Work& work, const Layout& layout, int64_t stage);

}  // namespace tessera::plan
