#include "checkpoint/weight_pieces.h"

#include "checkpoint/memory_pieces.h"

namespace tessera::checkpoint {

Status WeightPieces::read(const std::string& tensor, StateKind kind, const Extent& box, at::Tensor& out) {
  TESSERA_RETURN_IF_ERROR(prepare_output(box, out));
  if (kind != StateKind::master) return out.zero_(), Status();
  TESSERA_ASSIGN_OR_RETURN(at::Tensor values, weights_.read(tensor, box, at::kFloat));
  out.copy_(values.view({-1}));
  return {};
}

}  // namespace tessera::checkpoint
