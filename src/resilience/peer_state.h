// Moves a snapshot from the memories that hold it to the ranks that need it, whatever the two layouts: each
// rank says which boxes it needs and which parts it holds, all compute the same list of transfers, and one
// all-to-all carries them. No rank receives more than it needs.
#pragma once

#include <span>
#include <vector>

#include "checkpoint/memory_pieces.h"
#include "resilience/snapshots.h"

namespace tessera::resilience {

struct NeededBox {
  std::string tensor;
  StateKind kind = StateKind::master;
  Extent box;
};
// The boxes of these pieces: what a trainer that has such a state must be given to restore.
std::vector<NeededBox> boxes_of(std::span<const Piece> pieces);

// Collective over `group`; a rank that only gives has an empty `needed`.
// Errors: data_loss when a held part is torn, not_found when no rank holds some part of a needed box.
Result<checkpoint::MemoryPieces> fetch_from_peers(Group& group, std::span<const NeededBox> needed,
                                                  std::span<const Snapshots::Part* const> held);

}  // namespace tessera::resilience
