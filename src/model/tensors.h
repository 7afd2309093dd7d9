// Small helpers on CPU tensors that layers share.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "comm/group.h"
#include "layout/layout.h"

namespace tessera::model {

using at::Tensor;

inline Tensor make(at::IntArrayRef shape, at::ScalarType dtype) {
  return at::empty(shape, at::TensorOptions().dtype(dtype));
}
inline Tensor make_float(at::IntArrayRef shape) {
  return make(shape, at::kFloat);
}
inline Tensor make_zeros(at::IntArrayRef shape, at::ScalarType dtype) {
  return at::zeros(shape, at::TensorOptions().dtype(dtype));
}
inline at::ScalarType working_dtype(Precision precision) {
  return precision == Precision::bf16 ? at::kBFloat16 : at::kFloat;
}

// Rows or columns [first, first + count) as a view.
inline Tensor rows(const Tensor& t, int64_t first, int64_t count) {
  return t.narrow(0, first, count);
}
inline Tensor columns(const Tensor& t, int64_t first, int64_t count) {
  return t.narrow(1, first, count);
}

// Memory of a contiguous tensor, for transports.
inline Bytes bytes(const Tensor& t) {
  TESSERA_REQUIRE(t.is_contiguous(), "bytes of a tensor that is not contiguous");
  return {static_cast<const std::byte*>(t.const_data_ptr()), static_cast<size_t>(t.nbytes())};
}
inline MutableBytes mutable_bytes(const Tensor& t) {
  TESSERA_REQUIRE(t.is_contiguous(), "bytes of a tensor that is not contiguous");
  return {static_cast<std::byte*>(t.data_ptr()), static_cast<size_t>(t.nbytes())};
}

}  // namespace tessera::model
