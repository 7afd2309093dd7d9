// What a decoder and a prefill worker say to each other, in a group of two: the decoder, rank 0, sends prompts,
// the worker, rank 1, sends back the keys and values of their blocks, run by run as its steps end.
// Threads: one at a time on each side.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "comm/group.h"
#include "serve/step_batch.h"

namespace tessera::serve {

// A prompt cut to whole blocks.
struct PrefillJob {
  std::vector<int64_t> tokens;
  std::string salt;  // blocks are shared between equal salts only
  bool operator==(const PrefillJob&) const = default;
};

// The decoder's side. `job` goes with Command::step only.
Status send_order(Group& group, Command command, const PrefillJob& job = {});
// Fills `blocks`, `block_bytes` for each block, in their order. Errors: the group's; a worker that sends more.
Status receive_blocks(Group& group, int64_t block_bytes, MutableBytes blocks);

// The worker's side.
struct PrefillOrder {
  Command command = Command::idle;
  PrefillJob job;
};
Result<PrefillOrder> receive_order(Group& group);
Status send_blocks(Group& group, int64_t block_bytes, Bytes blocks);

}  // namespace tessera::serve
