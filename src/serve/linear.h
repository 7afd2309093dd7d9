// Weights of a served model behind one call each, in floats or in few bits.
//
// Bits: as serve/model.h promises: what tensor parallelism may cut is summed in float32 by block, and the
// blocks by a binary tree.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <span>
#include <vector>

#include "kernels/kernels.h"
#include "kernels/quant.h"
#include "kernels/served_layers.h"

namespace tessera::serve {

// The fixed tree over a power of two of float32 parts; parts[0] holds the result.
void tree_sum(std::vector<at::Tensor>& parts);

// A weight whose rows may be cut: all of k is here. A bias is float32 and added in float32.
class Linear {
 public:
  Linear() = default;
  explicit Linear(kernels::PackedWeight weight, at::Tensor bias = {})
      : floats_(std::move(weight)), bias_(std::move(bias)) {}
  // `order` (int64 [k]): input i of the weights is column order[i] of x; undefined: as they are.
  explicit Linear(std::vector<kernels::QuantWeight> side_by_side, at::Tensor order = {})
      : quant_(std::move(side_by_side)), order_(std::move(order)) {}

  int64_t n() const;
  void apply(const at::Tensor& x, at::Tensor& out) const;  // out [T, n]

 private:
  void multiply(const at::Tensor& x, at::Tensor& out) const;
  kernels::PackedWeight floats_;
  std::vector<kernels::QuantWeight> quant_;
  at::Tensor bias_, order_;
};

// A weight whose k is cut in blocks, with the blocks of this rank. A bias (float32, beside floats only) belongs
// to the first block of all: the rank that has it adds it there.
class BlockLinear {
 public:
  BlockLinear() = default;
  explicit BlockLinear(std::vector<kernels::PackedWeight> blocks, at::Tensor bias = {})
      : floats_(std::move(blocks)), bias_(std::move(bias)) {}
  // order: as of Linear.
  explicit BlockLinear(kernels::QuantWeight weight, at::Tensor order = {})
      : quant_(std::move(weight)), order_(std::move(order)) {}

  // Float32 [T, n], the blocks added by the tree.
  at::Tensor apply(const at::Tensor& x) const;
  size_t num_blocks() const { return floats_.size(); }  // of floats
  const kernels::PackedWeight& block(size_t i) const { return floats_[i]; }
  const at::Tensor& bias() const { return bias_; }
  // Float32 [blocks][T, n], apart.
  std::vector<at::Tensor> apply_apart(const at::Tensor& x) const;  // REQUIRES: floats

 private:
  std::vector<kernels::PackedWeight> floats_;
  kernels::QuantWeight quant_;
  at::Tensor bias_, order_;
};

// The feed-forward networks of a layer: one when it is dense, else one for each expert.
class FeedForward {
 public:
  struct Floats {
    kernels::PackedWeight gate_up;  // up alone where the activation has no gate
    BlockLinear down;
    at::Tensor gate_up_bias = {};  // float32, or undefined
  };
  FeedForward() = default;
  explicit FeedForward(std::vector<Floats> experts, kernels::Activation activation = {})
      : floats_(std::move(experts)), activation_(activation) {}
  // orders: of the inputs of each expert, as of Linear; empty: as they are.
  explicit FeedForward(std::vector<kernels::QuantFfn> experts, std::vector<at::Tensor> orders = {})
      : quant_(std::move(experts)), orders_(std::move(orders)) {}

  // What adapters add to the two products of a dense network; both are called, in this order.
  struct Additions {
    std::function<void(at::Tensor& gate_up)> gate_up;                  // [T, 2F], gate first
    std::function<void(const at::Tensor& act, at::Tensor& out)> down;  // out: float32 [T, D]
  };
  // The dense network: float32 [T, D], the blocks added by the tree.
  at::Tensor apply(const at::Tensor& x) const;
  at::Tensor apply(const at::Tensor& x, const Additions& additions) const;
  // Rows sorted by expert: [first[e], first[e + 1]) go through expert e. Float32 [blocks][N, D], apart.
  std::vector<at::Tensor> apply_experts(const at::Tensor& rows, std::span<const int64_t> first) const;

 private:
  // What comes between the products, for rows of one expert or of all of them.
  at::Tensor activated(const at::Tensor& rows, at::Tensor gate_up, std::span<const int64_t> first) const;
  at::Tensor gate_up_of(const at::Tensor& rows) const;
  at::Tensor ordered(const at::Tensor& rows, std::span<const int64_t> first) const;

  std::vector<Floats> floats_;
  std::vector<kernels::QuantFfn> quant_;
  std::vector<at::Tensor> orders_;
  kernels::Activation activation_;
};

}  // namespace tessera::serve
