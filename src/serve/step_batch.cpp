#include "serve/step_batch.h"

#include <array>

namespace tessera::serve {

namespace {

using batching::KvMove;

// command, tokens, length of the block table, max_blocks, wanted, moves
using Header = std::array<int64_t, 6>;
constexpr int64_t kMoveNumbers = 4;

std::vector<int64_t> pack(const StepBatch& batch) {
  std::vector<int64_t> flat;
  for (const auto* part :
       {&batch.tokens, &batch.positions, &batch.sequence, &batch.slot, &batch.block_table, &batch.wanted})
    flat.insert(flat.end(), part->begin(), part->end());
  for (const KvMove& move : batch.moves)
    flat.insert(flat.end(), {move.from_tier, move.to_tier, move.from, move.to});
  return flat;
}

StepBatch unpack(const Header& header, const std::vector<int64_t>& flat) {
  StepBatch batch{.max_blocks = header[3]};
  auto next = flat.begin();
  auto take = [&next](std::vector<int64_t>& part, int64_t count) {
    part.assign(next, next + count);
    next += count;
  };
  for (auto* part : {&batch.tokens, &batch.positions, &batch.sequence, &batch.slot}) take(*part, header[1]);
  take(batch.block_table, header[2]);
  take(batch.wanted, header[4]);
  for (int64_t i = 0; i < header[5]; ++i, next += kMoveNumbers)
    batch.moves.push_back({.from_tier = next[0],
                           .to_tier = next[1],
                           .from = static_cast<batching::BlockId>(next[2]),
                           .to = static_cast<batching::BlockId>(next[3])});
  return batch;
}

int64_t flat_size(const Header& header) {
  return 4 * header[1] + header[2] + header[4] + kMoveNumbers * header[5];
}

}  // namespace

Status announce(Group& group, Command command, const StepBatch& batch) {
  if (group.size() == 1) return {};
  Header header{static_cast<int64_t>(command),
                batch.num_tokens(),
                static_cast<int64_t>(batch.block_table.size()),
                batch.max_blocks,
                static_cast<int64_t>(batch.wanted.size()),
                std::ssize(batch.moves)};
  TESSERA_RETURN_IF_ERROR(group.broadcast(0, mutable_bytes_of(std::span<int64_t>(header))));
  if (command != Command::step) return {};
  std::vector<int64_t> flat = pack(batch);
  return group.broadcast(0, mutable_bytes_of(std::span<int64_t>(flat)));
}

Result<Followed> follow(Group& group) {
  Header header{};
  TESSERA_RETURN_IF_ERROR(group.broadcast(0, mutable_bytes_of(std::span<int64_t>(header))));
  Followed followed{.command = static_cast<Command>(header[0])};
  if (followed.command != Command::step) return followed;
  std::vector<int64_t> flat(static_cast<size_t>(flat_size(header)));
  TESSERA_RETURN_IF_ERROR(group.broadcast(0, mutable_bytes_of(std::span<int64_t>(flat))));
  followed.batch = unpack(header, flat);
  return followed;
}

}  // namespace tessera::serve
