// The dot products of all pairs of a row's vectors, and back, for DLRM: the half of the square that is used,
// without the square, its copies and the joining of its inputs. Raw loops, compiled once per level from
// body/dots.h.
//
// Bits: products are added one after the other along the summed index, by fused multiply-add. The matrix
// products of torch do so too for most sizes; who wants torch's bits compares (layers.cpp).
//
// A row has one vector `first` and `others` vectors; vector 0 is `first`. Shapes: F = 1 + others, D dimension.
// Pairs (i, j < i) stand by rows: (1, 0), (2, 0), (2, 1), ...
#pragma once

#include <cstdint>

namespace tessera::recsys_train {

struct DotRows {
  int64_t rows, others, dim;
  const float* first;    // [rows, D], `first_stride` apart
  const float* vectors;  // [rows, others, D]
  int64_t first_stride;
};

struct DotKernels {
  // out [rows, out_stride]: F (F - 1) / 2 products each.
  void (*forward)(const DotRows& rows, float* out, int64_t out_stride);
  // From the gradient of the products [rows, gradient_stride] to that of all vectors, first ones [rows, D]
  // apart.
  void (*backward)(const DotRows& rows, const float* gradient, int64_t gradient_stride, float* to_first,
                   float* to_vectors);
};

extern const DotKernels avx2_dot_kernels, avx512_dot_kernels;
// Null where the processor has no fused multiply-add, or the sizes do not fit (dim a multiple of 8, at most 127
// vectors).
const DotKernels* dot_kernels(int64_t vectors, int64_t dim);

}  // namespace tessera::recsys_train
