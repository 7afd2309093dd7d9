#include "serve/step_batch.h"

#include <algorithm>
#include <array>

namespace tessera::serve {

namespace {

using batching::KvMove;

// Before each batch: tokens, length of the block table, max_blocks, wanted, moves, adapters.
constexpr size_t kHeader = 6;
constexpr int64_t kMoveNumbers = 4;

void pack(const StepBatch& batch, std::vector<int64_t>& flat) {
  flat.insert(flat.end(), {batch.num_tokens(), std::ssize(batch.block_table), batch.max_blocks,
                           std::ssize(batch.wanted), std::ssize(batch.moves), std::ssize(batch.adapter)});
  for (const auto* part : {&batch.tokens, &batch.positions, &batch.sequence, &batch.slot, &batch.block_table,
                           &batch.wanted, &batch.adapter})
    flat.insert(flat.end(), part->begin(), part->end());
  for (const KvMove& move : batch.moves)
    flat.insert(flat.end(), {move.from_tier, move.to_tier, move.from, move.to});
}

StepBatch unpack(std::vector<int64_t>::const_iterator& next) {
  std::array<int64_t, kHeader> header{};
  std::copy_n(next, kHeader, header.begin());
  next += kHeader;
  auto [tokens, table, max_blocks, wanted, moves, adapters] = header;
  StepBatch batch{.max_blocks = max_blocks};
  auto take = [&next](std::vector<int64_t>& part, int64_t count) {
    part.assign(next, next + count);
    next += count;
  };
  for (auto* part : {&batch.tokens, &batch.positions, &batch.sequence, &batch.slot}) take(*part, tokens);
  take(batch.block_table, table);
  take(batch.wanted, wanted);
  take(batch.adapter, adapters);
  for (int64_t i = 0; i < moves; ++i, next += kMoveNumbers)
    batch.moves.push_back({.from_tier = next[0],
                           .to_tier = next[1],
                           .from = static_cast<batching::BlockId>(next[2]),
                           .to = static_cast<batching::BlockId>(next[3])});
  return batch;
}

}  // namespace

void add_sequence(StepBatch& batch, const SequencePart& part, int64_t block_tokens) {
  const int64_t row = batch.num_sequences();
  for (int64_t position = part.first; int64_t token : part.tokens) {
    const int64_t block = part.blocks[static_cast<size_t>(position / block_tokens)];
    batch.tokens.push_back(token);
    batch.positions.push_back(position);
    batch.sequence.push_back(row);
    batch.slot.push_back(block * block_tokens + position % block_tokens);
    ++position;
  }
  batch.block_table.insert(batch.block_table.end(), part.blocks.begin(), part.blocks.end());
  batch.block_table.resize(static_cast<size_t>((row + 1) * batch.max_blocks), 0);
}

// First the command with the length of what follows it, then the batches.
Status announce(Group& group, Command command, std::span<const StepBatch> batches) {
  if (group.size() == 1) return {};
  std::vector<int64_t> flat;
  for (const StepBatch& batch : batches) pack(batch, flat);
  std::array<int64_t, 2> head{static_cast<int64_t>(command), std::ssize(flat)};
  TESSERA_RETURN_IF_ERROR(group.broadcast(0, mutable_bytes_of(std::span<int64_t>(head))));
  if (flat.empty()) return {};
  return group.broadcast(0, mutable_bytes_of(std::span<int64_t>(flat)));
}

Result<Followed> follow(Group& group) {
  std::array<int64_t, 2> head{};
  TESSERA_RETURN_IF_ERROR(group.broadcast(0, mutable_bytes_of(std::span<int64_t>(head))));
  Followed followed{.command = static_cast<Command>(head[0])};
  if (head[1] == 0) return followed;
  std::vector<int64_t> flat(static_cast<size_t>(head[1]));
  TESSERA_RETURN_IF_ERROR(group.broadcast(0, mutable_bytes_of(std::span<int64_t>(flat))));
  for (auto next = flat.cbegin(); next != flat.cend();) followed.batches.push_back(unpack(next));
  return followed;
}

}  // namespace tessera::serve
