// Helpers of this part's tests.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "kernels/kernels.h"

namespace tessera::kernels::testing {

using at::Tensor;

inline Tensor random(at::IntArrayRef sizes, uint64_t seed, at::ScalarType type = at::kFloat, double size = 1) {
  Tensor result = at::empty(sizes, at::kFloat);
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal(0, static_cast<float>(size));
  float* data = result.data_ptr<float>();
  for (int64_t i = 0; i < result.numel(); ++i) data[i] = normal(engine);
  return result.to(type);
}

// The same values with a larger row stride and an odd offset.
inline Tensor strided(const Tensor& tensor, int64_t gap = 5, int64_t offset = 3) {
  const int64_t rows = tensor.size(0), width = rows == 0 ? 0 : tensor.numel() / rows;
  Tensor buffer = at::empty({rows * (width + gap) + offset}, tensor.options());
  auto strides = tensor.strides().vec();
  strides[0] = width + gap;
  Tensor view = buffer.as_strided(tensor.sizes(), strides, offset);
  view.copy_(tensor);
  return view;
}

inline bool same_bits(const Tensor& a, const Tensor& b) {
  if (a.sizes() != b.sizes() || a.scalar_type() != b.scalar_type()) return false;
  const Tensor x = a.contiguous(), y = b.contiguous();
  return x.numel() == 0 || std::memcmp(x.data_ptr(), y.data_ptr(), x.nbytes()) == 0;
}

// The largest |value - expected| / (absolute + relative * |expected|); at most 1 when all are within.
inline double excess(const Tensor& value, const Tensor& expected, double absolute, double relative) {
  EXPECT_EQ(value.sizes(), expected.sizes());
  if (value.numel() == 0) return 0;
  const Tensor x = value.to(at::kDouble).contiguous(), y = expected.to(at::kDouble).contiguous();
  const double *left = x.data_ptr<double>(), *right = y.data_ptr<double>();
  double worst = 0;
  for (int64_t i = 0; i < x.numel(); ++i) {
    const double error = std::abs(left[i] - right[i]) / (std::abs(right[i]) * relative + absolute);
    if (std::isnan(error)) return std::numeric_limits<double>::infinity();
    worst = std::max(worst, error);
  }
  return worst;
}

// Runs with n threads, then with one again.
class WithThreads {
 public:
  explicit WithThreads(int64_t n) { set_kernel_threads(n); }
  ~WithThreads() { set_kernel_threads(1); }
};

constexpr double kFloatUnit = 0x1p-24;  // unit roundoff
constexpr double kBf16Unit = 0x1p-8;    // of bfloat16, 8 bits: 2^-9, doubled for the rounded input

}  // namespace tessera::kernels::testing
