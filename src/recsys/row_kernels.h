// What one instruction set offers for a row: raw loops over pointers, compiled once per level from the bodies
// in body/ and chosen at run time. Every level gives the same bits: elements are independent, and sums over a
// row run in sixteen lanes that meet in a fixed tree. No inline functions of the standard library here: the
// linker might take one from a file compiled for a newer processor.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tessera::recsys {

// Constants of one update, in the precision of torch's kernels.
struct RowStep {
  double rate;
  float learning_rate, weight_decay, epsilon, momentum;
  bool nesterov, accumulate_after;
  float beta1, beta2, one_minus_beta1, one_minus_beta2;
  float step_size, root_correction;      // Adam, LAMB: lr / (1 - beta1^t), sqrt(1 - beta2^t)
  float first_correction, decay_factor;  // LAMB: 1 - beta1^t; AdamW: 1 - lr * weight_decay
  float ftrl_alpha_inverse, ftrl_beta, l1, l2;
};

struct InitStep {
  int32_t kind;  // InitOptions::Kind zeros, constant, uniform
  float base, width;
  uint32_t key_low, key_high;  // of (seed, id)
};

struct RowKernels {
  const char* name;
  // By RowType. `random` 0 rounds to nearest even, else it seeds stochastic rounding.
  void (*load[4])(const std::byte* row, int64_t dim, float* values);
  void (*store[4])(const float* values, int64_t dim, std::byte* row, uint32_t random);
  // By OptimizerOptions::Kind; `state` as in row_update.h. False, and nothing changed, when the gradient has
  // NaN or infinity, or squares that sum to infinity where the optimizer needs their sum.
  bool (*update[7])(const RowStep&, int64_t dim, float* values, float* state, const float* gradient);
  bool (*finite)(const float* values, int64_t dim);
  void (*initial)(const InitStep&, int64_t dim, float* values);
  float (*sum_of_squares)(const float* values, int64_t dim);
  void (*add)(const float* values, int64_t dim, float* into);
};

extern const RowKernels generic_row_kernels, avx2_row_kernels, avx512_row_kernels;

// The best for this processor, or the one that TESSERA_ISA names (generic, avx2, avx512).
const RowKernels& row_kernels();
const RowKernels* row_kernels_named(const char* name);  // null when unknown or not usable here

}  // namespace tessera::recsys
