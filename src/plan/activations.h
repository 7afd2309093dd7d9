// What the trainer keeps from forward to backward: one row per tensor, so that the table can be held against
// the allocator's count line by line. Everything that follows from it (memory per stage, recomputation) reads
// this table.
#pragma once

#include <vector>

#include "plan/shapes.h"

namespace tessera::plan {

struct KeptTensor {
  const char* name;
  double elements;  // on one rank, one layer, one micro-batch
  double bytes_per_element;
  double bytes() const { return elements * bytes_per_element; }
};

// Kept by one block without recomputation. Shape letters as in kernels.h; "shard": rows split by sequence
// parallelism; "gathered": all rows of the micro-batch.
std::vector<KeptTensor> kept_by_block(const ModelSpec& model, const Work& work, const Layout& layout,
                                      int64_t layer);
// Kept by the head, loss and embedding of one micro-batch, between the last forward and its backward.
std::vector<KeptTensor> kept_by_head(const ModelSpec& model, const Work& work, const Layout& layout);
// The input of a block: all that full recomputation keeps.
double block_input_bytes(const ModelSpec& model, const Work& work, const Layout& layout);
// The largest set of temporaries that one block's backward, or the head's, holds at once beside what is kept.
double block_workspace_bytes(const ModelSpec& model, const Work& work, const Layout& layout, int64_t layer);

double total_bytes(const std::vector<KeptTensor>& tensors);

}  // namespace tessera::plan
