// One step of the server as plain numbers: what rank 0 decides and every rank of a tensor-parallel group runs.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "batching/kv_cache.h"
#include "comm/group.h"
#include "core/result.h"

namespace tessera::serve {

// T tokens of S sequences. Keys and values of token t go to slot[t] = block * block_tokens + offset; it sees
// positions 0 .. positions[t] of its sequence through block_table.
struct StepBatch {
  std::vector<int64_t> tokens, positions, sequence, slot;  // [T]; sequence: row of block_table
  std::vector<int64_t> block_table;                        // [S, max_blocks], rows filled up with 0
  int64_t max_blocks = 0;
  std::vector<int64_t> adapter;         // [S], index of the sequence's adapter or -1; empty: none has one
  std::vector<int64_t> wanted;          // tokens t whose logits are asked for, ascending
  std::vector<batching::KvMove> moves;  // of blocks between tiers, in order, before the tokens run

  int64_t num_tokens() const { return static_cast<int64_t>(tokens.size()); }
  int64_t num_sequences() const {
    return max_blocks == 0 ? 0 : static_cast<int64_t>(block_table.size()) / max_blocks;
  }
  bool operator==(const StepBatch&) const = default;
};

// Tokens [first, first + tokens.size()) of one sequence, whose token at position p lies in
// blocks[p / block_tokens].
struct SequencePart {
  std::span<const int64_t> tokens;
  int64_t first = 0;
  std::span<const batching::BlockId> blocks;
};
// Becomes the next row of the block table. REQUIRES: batch.max_blocks is that of the longest sequence.
void add_sequence(StepBatch& batch, const SequencePart& part, int64_t block_tokens);

// What rank 0 tells the others. idle keeps their deadline from passing while no request is there.
enum class Command : int64_t { step, idle, stop };

// Rank 0 calls announce(), every other rank follow(), in the same order. One batch for each replica.
Status announce(Group& group, Command command, std::span<const StepBatch> batches);
struct Followed {
  Command command = Command::idle;
  std::vector<StepBatch> batches;
};
Result<Followed> follow(Group& group);

}  // namespace tessera::serve
