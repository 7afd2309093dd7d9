// Tensors as the raw views that the tables take, with the checks of shape, type and stride.
#pragma once

#include <ATen/core/Tensor.h>
#include <fmt/ranges.h>

#include <span>

#include "core/result.h"
#include "kernels/table.h"

namespace tessera::kernels {

Type type_of(const at::Tensor& tensor);

// The same rows from another column on.
inline Source shifted(Source source, int64_t elements) {
  source.data = static_cast<const char*>(source.data) + elements * (source.type == Type::f32 ? 4 : 2);
  return source;
}
inline Target shifted(Target target, int64_t elements) {
  target.data = static_cast<char*>(target.data) + elements * (target.type == Type::f32 ? 4 : 2);
  return target;
}

// A tensor [T, ...]: T rows, the rest of the dimensions contiguous; the stride between rows may be larger.
struct Rows {
  void* data;
  Type type;
  int64_t count, width, stride;

  Source source(int64_t row = 0) const { return {at(row), type, stride}; }
  Target target(int64_t row = 0) const { return {at(row), type, stride}; }
  void* at(int64_t row) const { return static_cast<char*>(data) + row * stride * (type == Type::f32 ? 4 : 2); }
};
// `name` is for the message of a failed check.
Rows rows_of(const at::Tensor& tensor, const char* name);

// As rows, but every row is one run of the last dimension: [T, H, E] gives T * H rows when H * E is contiguous.
// Calls of a norm on heads use it.
struct HeadRows {
  Rows tokens;
  int64_t heads, width;
  int64_t count() const { return tokens.count * heads; }
  void* at(int64_t row) const {
    const int64_t size = tokens.type == Type::f32 ? 4 : 2;
    return static_cast<char*>(tokens.at(row / heads)) + row % heads * width * size;
  }
  Source source(int64_t row) const { return {at(row), tokens.type, width}; }
  Target target(int64_t row) const { return {at(row), tokens.type, width}; }
};
HeadRows head_rows_of(const at::Tensor& tensor, const char* name);

// Contiguous float32 / int32 / int64 data.
float* floats(const at::Tensor& tensor, const char* name);
const int32_t* ints(const at::Tensor& tensor, const char* name);
const int64_t* longs(const at::Tensor& tensor, const char* name);

void check_shape(const at::Tensor& tensor, std::initializer_list<int64_t> shape, const char* name);

}  // namespace tessera::kernels
