#include "serve/named_weights.h"

#include <ATen/ops/cat.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace tessera::serve {

using at::Tensor;

namespace {

constexpr const char* kFp8Scales = "_scale_inv";  // behind the name of a weight in FP8 (DeepSeek-V3)

}  // namespace

NamedWeights::NamedWeights(checkpoint::WeightReader reader, const ServedSpec& spec, const ServePlace& place,
                           const LoadOptions& options)
    : reader_(std::move(reader)),
      place_(place),
      options_(options),
      tp_blocks_(tp_blocks_of(spec)),
      num_tensors_(std::ssize(reader_.names())) {}

Result<NamedWeights> NamedWeights::open(const std::filesystem::path& directory, const ServedSpec& spec,
                                        const ServePlace& place, const LoadOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(auto reader, checkpoint::WeightReader::open(directory));
  return NamedWeights(std::move(reader), spec, place, options);
}

Status NamedWeights::check_shape(const std::string& name, const std::vector<int64_t>& shape) const {
  TESSERA_ASSIGN_OR_RETURN(std::vector<int64_t> stored, reader_.shape(name));
  if (stored == shape) return {};
  return invalid("tensor {} is [{}], but config.json asks for [{}]", name, fmt::join(stored, ", "),
                 fmt::join(shape, ", "));
}

void NamedWeights::count(const std::string& name) {
  if (options_.progress) options_.progress(num_read_, num_tensors_);
  if (last_read_ != name) num_read_ = std::min(num_read_ + 1, num_tensors_);
  last_read_ = name;
}

Result<Tensor> NamedWeights::read(const std::string& name, const std::vector<int64_t>& shape) {
  return read(name, shape, options_.dtype);
}

Result<Tensor> NamedWeights::read(const std::string& name, const std::vector<int64_t>& shape,
                                  at::ScalarType dtype) {
  TESSERA_RETURN_IF_ERROR(check_shape(name, shape));
  count(name);
  if (has(name + kFp8Scales)) return dequantised(name, shape, dtype);
  return reader_.read(name, dtype);
}

// A factor for each square of 128 x 128 elements, cut off at the ends.
Result<Tensor> NamedWeights::dequantised(const std::string& name, const std::vector<int64_t>& shape,
                                         at::ScalarType dtype) {
  constexpr int64_t kSquare = 128;
  std::vector<int64_t> squares;
  for (int64_t size : shape) squares.push_back((size + kSquare - 1) / kSquare);
  TESSERA_RETURN_IF_ERROR(check_shape(name + kFp8Scales, squares));
  TESSERA_ASSIGN_OR_RETURN(Tensor values, reader_.read(name, at::kFloat));
  TESSERA_ASSIGN_OR_RETURN(Tensor factors, reader_.read(name + kFp8Scales, at::kFloat));
  for (size_t dim = 0; dim < shape.size(); ++dim) {
    const auto at = static_cast<int64_t>(dim);
    factors = factors.repeat_interleave(kSquare, at).narrow(at, 0, shape[dim]);
  }
  return values.mul(factors).to(dtype);
}

Result<Norm> NamedWeights::norm(const std::string& name, int64_t width) {
  const bool older = has(name + ".gamma");
  Norm norm;
  TESSERA_ASSIGN_OR_RETURN(norm.weight, read(name + (older ? ".gamma" : ".weight"), {width}));
  const std::string bias = name + (older ? ".beta" : ".bias");
  if (!has(bias)) return norm;
  TESSERA_ASSIGN_OR_RETURN(norm.bias, read(bias, {width}));
  return norm;
}

Result<Tensor> NamedWeights::read_part(const std::string& name, const std::vector<int64_t>& shape,
                                       int64_t index, at::ScalarType dtype) {
  TESSERA_RETURN_IF_ERROR(check_shape(name, shape));
  count(name);
  Extent box{std::vector<int64_t>(shape.size(), 0), shape};
  box.offset[0] = index;
  box.size[0] = 1;
  return reader_.read(name, box, dtype);
}

Tensor NamedWeights::own_rows(std::initializer_list<Tensor> tensors) const {
  std::vector<Tensor> parts;
  for (const Tensor& tensor : tensors) {
    const int64_t rows = tensor.size(0) / place_.tp;
    parts.push_back(tensor.narrow(0, place_.tp_rank * rows, rows));
  }
  return at::cat(parts).contiguous();
}

BlockLinear NamedWeights::blocks(const Tensor& weight, const Tensor& bias) const {
  const int64_t own = tp_blocks_ / place_.tp, width = weight.size(1) / tp_blocks_;
  std::vector<kernels::PackedWeight> parts;
  for (int64_t i = 0; i < own; ++i)
    parts.emplace_back(weight.narrow(1, (place_.tp_rank * own + i) * width, width).contiguous());
  return BlockLinear(std::move(parts), place_.tp_rank == 0 ? bias : Tensor());
}

Tensor NamedWeights::own_vocab(const Tensor& weight) const {
  const int64_t rows = padded_vocab(weight.size(0), tp_blocks_) / place_.tp;
  const int64_t first = std::min(place_.tp_rank * rows, weight.size(0));
  return weight.narrow(0, first, std::min(rows, weight.size(0) - first)).contiguous();
}

}  // namespace tessera::serve
