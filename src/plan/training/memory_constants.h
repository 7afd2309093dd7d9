// What no shape of a model explains: buckets, fragmentation, context. One row per framework in
// data/constants/memory.toml, each figure with its source.
#pragma once

#include "plan/training/setup.h"

namespace tessera::plan {

struct MemoryConstants {
  double bucket_bytes = 0;   // communication buckets inside the allocator
  double fragmentation = 0;  // reserved over allocated, minus 1
  double context_bytes = 0;  // CUDA context, libraries, NCCL: outside the allocator
  double half_width = 0;     // of the 90 % interval of the peak, relative
  double least_fragmentation = 0, least_context_bytes = 0;  // with which a run survives
};
const MemoryConstants& memory_constants(Framework framework);

}  // namespace tessera::plan
