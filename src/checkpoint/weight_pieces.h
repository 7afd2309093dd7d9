// A Hugging Face model directory as the start of training: masters are its weights, AdamW's averages are zero.
#pragma once

#include "checkpoint/pieces.h"
#include "checkpoint/weight_reader.h"

namespace tessera::checkpoint {

class WeightPieces : public PieceReader {
 public:
  explicit WeightPieces(WeightReader weights) : weights_(std::move(weights)) {}
  Status read(const std::string& tensor, StateKind kind, const Extent& box, at::Tensor& out) override;

 private:
  WeightReader weights_;
};

}  // namespace tessera::checkpoint
