// Which part of a tensor a rank holds, in coordinates of the whole tensor: what lets a checkpoint be read by
// any layout.
#pragma once

#include <cstdint>
#include <vector>

#include "layout/layout.h"

namespace tessera {

// A box: elements [offset, offset + size) in every dimension.
struct Extent {
  std::vector<int64_t> offset, size;
  int64_t elements() const;
  bool operator==(const Extent&) const = default;
};

// Whether the rank at `c` holds the tensor at all (its pipeline stage, and for an expert its ep place).
bool holds(const ModelSpec& model, const TensorSpec& tensor, const Layout& layout, const Coordinate& c);

// The box of the tensor that tensor parallelism gives to place `tp_place` of `tp`. The vocabulary is cut after
// padding to a multiple of tp_blocks, so the last box may be smaller, or empty. REQUIRES: tp divides the split
// dimension otherwise.
Extent tp_extent(const TensorSpec& tensor, int64_t tp, int64_t tp_place, int64_t tp_blocks);

// Flat elements [begin, end) of a row-major box, as boxes of the whole tensor in flat order (three at most for
// a matrix). Used for shards of fsdp and of the optimizer, which cut a local tensor anywhere.
std::vector<Extent> extents_of_range(const Extent& box, int64_t begin, int64_t end);

// Vocabulary rows after padding: the next multiple of tp_blocks.
inline int64_t padded_vocab(int64_t vocab, int64_t tp_blocks) {
  return (vocab + tp_blocks - 1) / tp_blocks * tp_blocks;
}

}  // namespace tessera
