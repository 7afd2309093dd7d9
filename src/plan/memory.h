// Peak bytes of live tensors of one rank, by class. Whether a layout fits is decided before a cluster is
// rented, so each class is a sum over tensors, driven by the schedule table that is run.
#pragma once

#include <vector>

#include "layout/layout.h"

namespace tessera::plan {

struct MemoryByClass {
  double weights = 0;      // working precision, this rank's shard
  double gathered = 0;     // blocks whole for use: the one in use and the one prefetched (fsdp > 1)
  double optimizer = 0;    // float32 master and two moments: 12 bytes an element of the rank's share
  double gradients = 0;    // float32 accumulators and the leaf gradient of one block
  double activations = 0;  // kept from forward to backward, all slots in flight
  double workspace = 0;    // largest of head and block temporaries
  double total() const { return weights + gathered + optimizer + gradients + activations + workspace; }
};

// Of a rank of pipeline stage `stage`. REQUIRES: validate(model, work, layout, false) holds.
MemoryByClass stage_memory(const ModelSpec& model, const Work& work, const Layout& layout, int64_t stage);
// Micro-batches whose activations the stage holds at once, from the schedule table.
int64_t slots_in_flight(const Work& work, const Layout& layout, int64_t stage);

}  // namespace tessera::plan
