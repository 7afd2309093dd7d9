// Weights of a served model behind one call each, in floats or in few bits.
//
// Bits: as serve/model.h promises: what tensor parallelism may cut is summed in float32 by block, and the
// blocks by a binary tree.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "kernels/kernels.h"
#include "kernels/quant.h"

namespace tessera::serve {

// The fixed tree over a power of two of float32 parts; parts[0] holds the result.
void tree_sum(std::vector<at::Tensor>& parts);

// A weight whose rows may be cut: all of k is here.
class Linear {
 public:
  Linear() = default;
  explicit Linear(kernels::PackedWeight weight) : floats_(std::move(weight)) {}
  explicit Linear(std::vector<kernels::QuantWeight> side_by_side) : quant_(std::move(side_by_side)) {}

  int64_t n() const;
  void apply(const at::Tensor& x, at::Tensor& out) const;  // out [T, n]

 private:
  kernels::PackedWeight floats_;
  std::vector<kernels::QuantWeight> quant_;
};

// A weight whose k is cut in blocks, with the blocks of this rank.
class BlockLinear {
 public:
  BlockLinear() = default;
  explicit BlockLinear(std::vector<kernels::PackedWeight> blocks) : floats_(std::move(blocks)) {}
  explicit BlockLinear(kernels::QuantWeight weight) : quant_(std::move(weight)) {}

  // Float32 [T, n], the blocks added by the tree.
  at::Tensor apply(const at::Tensor& x) const;
  size_t num_blocks() const { return floats_.size(); }  // of floats
  const kernels::PackedWeight& block(size_t i) const { return floats_[i]; }
  // Float32 [blocks][T, n], apart.
  std::vector<at::Tensor> apply_apart(const at::Tensor& x) const;  // REQUIRES: floats

 private:
  std::vector<kernels::PackedWeight> floats_;
  kernels::QuantWeight quant_;
};

// The gated networks of a layer: one when it is dense, else one for each expert.
class FeedForward {
 public:
  struct Floats {
    kernels::PackedWeight gate_up;
    BlockLinear down;
  };
  FeedForward() = default;
  explicit FeedForward(std::vector<Floats> experts) : floats_(std::move(experts)) {}
  explicit FeedForward(std::vector<kernels::QuantFfn> experts) : quant_(std::move(experts)) {}

  // The dense network: float32 [T, D], the blocks added by the tree.
  at::Tensor apply(const at::Tensor& x) const;
  // Rows sorted by expert: [first[e], first[e + 1]) go through expert e. Float32 [blocks][N, D], apart.
  std::vector<at::Tensor> apply_experts(const at::Tensor& rows, std::span<const int64_t> first) const;

 private:
  std::vector<Floats> floats_;
  std::vector<kernels::QuantFfn> quant_;
};

}  // namespace tessera::serve
