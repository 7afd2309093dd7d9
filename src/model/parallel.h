// The conjugate pairs of tensor parallelism with sequence parallelism (Korthikanti et al. 2022): between layers
// each tp rank keeps its part of the tokens; gather() before a column-parallel product, reduce_scatter() after
// a row-parallel one; each is the other's gradient.
//
// Bits: sums over tp follow the tree over tp_blocks, rounded once by the caller. In exact mode a product with a
// split k is computed per block; in fast mode once per rank.
#pragma once

#include <functional>

#include "model/context.h"

namespace tessera::model {

// x[Tl, ...] of every tp rank, in order: [T, ...]. The same tensor when tp == 1.
Tensor gather_tokens(Context& context, const Tensor& x);

// partial[T, D] float32, a node of the tree over blocks -> the sum over tp for this rank's tokens, [Tl, D]
// float32. Takes `partial` over.
Tensor reduce_scatter_tokens(Context& context, Tensor partial);

// Tree over this rank's blocks of [tokens, width] partial products; multiply(block, out) computes one (float32,
// overwrites).
Tensor sum_blocks(Context& context, int64_t tokens, int64_t width,
                  const std::function<void(int64_t, Tensor&)>& multiply);

// y = x * weight^T with k split over tp: x[T, Kl], weight[N, Kl] -> float32 [Tl, N].
Tensor row_parallel(Context& context, const Tensor& x, const Tensor& weight);

// Gradient of a weight [N, K] from the tokens of a micro-batch: dweight = dy^T x, one leaf per chunk, added by
// the tree. dy[T, N], x[T, K] hold `chunks` chunks of equal length; out is float32 [N, K].
void weight_gradient(const Tensor& dy, const Tensor& x, int64_t chunks, Tensor& out);

// Gradients of weights that every tp rank holds whole (norms, router): leaves[Cl, ...] of this rank's chunks
// become the tree over all chunks of the micro-batch. Float32.
Tensor sum_chunks_over_tp(Context& context, const Tensor& leaves);

}  // namespace tessera::model
