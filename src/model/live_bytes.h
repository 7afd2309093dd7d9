// Bytes of live CPU tensors of this process, counted by an allocator in front of libtorch's: what a plan
// predicts as memory per rank. Code, libraries and the allocator's own slack (the process base) are not in it.
#pragma once

#include <cstdint>

namespace tessera::model {

// Puts the counting allocator in place. Call once, from main, before the first tensor.
void install_counting_allocator();

int64_t live_bytes();
int64_t peak_live_bytes();  // since the process began or reset_peak_live_bytes(); 0 when nothing counts
void reset_peak_live_bytes();

}  // namespace tessera::model
