// A process that computes prompts for a decoder (prefill_pool.h): one prompt after the other, in chunks, with a
// cache of its own in which prompts that begin alike share blocks.
// Threads: one at a time.
#pragma once

#include "serve/prefill_wire.h"
#include "serve/step_runner.h"

namespace tessera::serve {

// Works until the decoder, rank 0 of the group of two, says stop. `runner` is of one process and without slower
// tiers. Errors: the group's, those of a step; the decoder is not told, its group ends.
Status follow_decoder(StepRunner& runner, const batching::SchedulerOptions& scheduling, Group& decoder);

}  // namespace tessera::serve
