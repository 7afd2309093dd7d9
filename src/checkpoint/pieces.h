// Training state as pieces: boxes of whole tensors, under Hugging Face names, apart from any layout. Snapshots
// in memory, checkpoints on disk and re-forming on fewer ranks all move pieces; only the trainer knows how it
// stores them.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "core/result.h"
#include "layout/extents.h"

namespace tessera {

// master: the float32 weight. moment1, moment2: AdamW's averages, float32.
enum class StateKind { master, moment1, moment2 };
const char* to_string(StateKind kind);  // "master", "exp_avg", "exp_avg_sq"

struct Piece {
  std::string tensor;
  StateKind kind = StateKind::master;
  Extent box;
  at::Tensor values;    // float32, 1-D, contiguous, box.elements() long, row-major over the box; may alias the
                        // trainer's state
  bool primary = true;  // false: another rank holds the same values and will save them
};

// Where pieces can be had again: a checkpoint directory, peers' memory, a test's map.
class PieceReader {
 public:
  virtual ~PieceReader() = default;
  // Fills `out` (float32, box.elements() long). Errors: not_found, data_loss.
  virtual Status read(const std::string& tensor, StateKind kind, const Extent& box, at::Tensor& out) = 0;
};

}  // namespace tessera
