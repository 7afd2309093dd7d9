#include "kernels/views.h"

namespace tessera::kernels {
namespace {

// Are the dimensions from `first` on contiguous among themselves?
bool packed_from(const at::Tensor& tensor, int64_t first) {
  int64_t expected = 1;
  for (int64_t dim = tensor.dim() - 1; dim >= first; --dim) {
    if (tensor.size(dim) != 1 && tensor.stride(dim) != expected) return false;
    expected *= tensor.size(dim);
  }
  return true;
}

void* data_of(const at::Tensor& tensor) {
  return tensor.numel() == 0 ? nullptr : tensor.data_ptr();
}

void check_contiguous(const at::Tensor& tensor, at::ScalarType type, const char* name) {
  TESSERA_REQUIRE(tensor.defined() && tensor.scalar_type() == type && tensor.is_contiguous(),
                  "{}: expected a contiguous tensor of {}", name, c10::toString(type));
}

}  // namespace

Type type_of(const at::Tensor& tensor) {
  const auto type = tensor.scalar_type();
  TESSERA_REQUIRE(type == at::kFloat || type == at::kBFloat16, "expected float32 or bfloat16, got {}",
                  c10::toString(type));
  return type == at::kFloat ? Type::f32 : Type::bf16;
}

Rows rows_of(const at::Tensor& tensor, const char* name) {
  TESSERA_REQUIRE(tensor.defined() && tensor.dim() >= 1 && tensor.is_cpu(), "{}: expected a CPU tensor", name);
  TESSERA_REQUIRE(tensor.numel() == 0 || packed_from(tensor, 1), "{}: rows must be contiguous", name);
  int64_t width = 1;
  for (int64_t dim = 1; dim < tensor.dim(); ++dim) width *= tensor.size(dim);
  const int64_t stride = tensor.size(0) <= 1 ? width : tensor.stride(0);
  TESSERA_REQUIRE(tensor.numel() == 0 || stride >= width, "{}: row stride {} is below the width {}", name,
                  stride, width);
  return {data_of(tensor), type_of(tensor), tensor.size(0), width, stride};
}

HeadRows head_rows_of(const at::Tensor& tensor, const char* name) {
  const Rows tokens = rows_of(tensor, name);
  TESSERA_REQUIRE(tensor.dim() >= 2, "{}: expected [rows, width], got {} dimensions", name, tensor.dim());
  const int64_t width = tensor.size(-1);
  return {tokens, width == 0 ? 1 : tokens.width / width, width};
}

float* floats(const at::Tensor& tensor, const char* name) {
  check_contiguous(tensor, at::kFloat, name);
  return static_cast<float*>(data_of(tensor));
}
const int32_t* ints(const at::Tensor& tensor, const char* name) {
  check_contiguous(tensor, at::kInt, name);
  return static_cast<const int32_t*>(data_of(tensor));
}
const int64_t* longs(const at::Tensor& tensor, const char* name) {
  check_contiguous(tensor, at::kLong, name);
  return static_cast<const int64_t*>(data_of(tensor));
}

void check_shape(const at::Tensor& tensor, std::initializer_list<int64_t> shape, const char* name) {
  const bool equal = tensor.defined() && tensor.sizes() == at::IntArrayRef(shape);
  TESSERA_REQUIRE(equal, "{}: expected shape [{}], got [{}]", name, fmt::join(shape, ", "),
                  tensor.defined() ? fmt::format("{}", fmt::join(tensor.sizes(), ", ")) : "undefined");
}

}  // namespace tessera::kernels
