#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <map>

#include "kernels/threads.h"
#include "layout/extents.h"
#include "serve/gguf_model.h"

namespace tessera::serve {
namespace {

using at::Tensor;
using checkpoint::GgufFile;
using checkpoint::GgufTensor;
using checkpoint::quant_kind_of;
using kernels::kQuantGroup;
using kernels::kQuantPanel;
using kernels::PackedWeight;
using kernels::QuantWeight;

std::string name_of(Role role, int64_t layer, bool expert) {
  switch (role) {
    case Role::embedding:
      return "token_embd.weight";
    case Role::final_norm:
      return "output_norm.weight";
    case Role::head:
      return "output.weight";
    default:
      break;
  }
  static const std::map<Role, const char*> parts = {{Role::attention_norm, "attn_norm"},
                                                    {Role::q, "attn_q"},
                                                    {Role::k, "attn_k"},
                                                    {Role::v, "attn_v"},
                                                    {Role::q_norm, "attn_q_norm"},
                                                    {Role::k_norm, "attn_k_norm"},
                                                    {Role::o, "attn_output"},
                                                    {Role::ffn_norm, "ffn_norm"},
                                                    {Role::router, "ffn_gate_inp"},
                                                    {Role::gate, "ffn_gate"},
                                                    {Role::up, "ffn_up"},
                                                    {Role::down, "ffn_down"}};
  return fmt::format("blk.{}.{}{}.weight", layer, parts.at(role), expert ? "_exps" : "");
}

// A matrix [n, k] inside a tensor of the file, and where each of its rows lies there.
struct Matrix {
  const GgufFile& file;
  const GgufTensor& tensor;
  int64_t first_row = 0, n = 0, k = 0;
  int64_t paired_width = 0;  // of heads whose halves were interleaved; 0: rows are as they are

  std::span<const uint8_t> row(int64_t i) const {
    if (paired_width > 0) {
      const int64_t head = i / paired_width, at = i % paired_width, half = paired_width / 2;
      i = head * paired_width + at % half * 2 + at / half;
    }
    return file.row(tensor, first_row + i);
  }
};

// Columns [first, first + count) of rows [row, row + rows).
struct Box {
  int64_t row, rows, first, count;
};

Tensor dequantised(const Matrix& m, const Box& box, at::ScalarType dtype) {
  Tensor values = at::empty({box.rows, box.count}, at::TensorOptions(at::kFloat));
  kernels::parallel_ranges(box.rows, 16, [&](int64_t begin, int64_t end) {
    std::vector<float> row(static_cast<size_t>(m.k));
    for (int64_t i = begin; i < end; ++i) {
      checkpoint::dequantize(m.tensor.type, m.row(box.row + i), row);
      std::copy_n(row.begin() + box.first, box.count, values.mutable_data_ptr<float>() + i * box.count);
    }
  });
  return values.to(dtype);
}

// REQUIRES: first and count / blocks are multiples of 32.
QuantWeight packed(const Matrix& m, const Box& box, int64_t blocks) {
  const kernels::QuantShape shape{
      .kind = *quant_kind_of(m.tensor.type), .n = box.rows, .k = box.count, .blocks = blocks};
  Tensor bytes = at::zeros({shape.bytes()}, at::TensorOptions(at::kByte));
  std::span<uint8_t> to(bytes.data_ptr<uint8_t>(), static_cast<size_t>(bytes.numel()));
  const int64_t groups = shape.block_groups();
  kernels::parallel_ranges(shape.panels(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * kQuantPanel; i < std::min(end * kQuantPanel, shape.n); ++i) {
      const auto row = m.row(box.row + i);
      for (int64_t g = 0; g < blocks * groups; ++g)
        kernels::set_group(shape, to, i, g / groups, g % groups,
                           checkpoint::group_of(m.tensor.type, row, box.first / kQuantGroup + g));
    }
  });
  return {shape, bytes};
}

// The sums that tensor parallelism may cut must fall between groups.
int64_t blocks_of(const ModelSpec& spec) {
  int64_t blocks = tp_blocks_of(spec);
  auto fits = [&](int64_t k) { return k / blocks % kQuantGroup == 0; };
  auto all_fit = [&] {
    return fits(spec.heads * spec.head_dim) && fits(spec.ffn) && (spec.moe.experts == 0 || fits(spec.moe.ffn));
  };
  while (blocks > 1 && !all_fit()) blocks /= 2;
  return blocks;
}

class GgufWeights : public Weights {
 public:
  GgufWeights(GgufFile file, const ModelSpec& spec, const LoadOptions& options)
      : file_(std::move(file)), spec_(spec), options_(options), blocks_(blocks_of(spec)) {
    for (const TensorSpec& tensor : inventory(spec)) {
      shapes_.emplace(std::pair(tensor.role, tensor.layer), tensor);
      ++num_tensors_;
    }
  }

  // Every tensor that the model needs is there, in its shape.
  Status check() const {
    for (const auto& [key, tensor] : shapes_) {
      const bool expert = tensor.expert >= 0;
      const std::string name = name_of(tensor.role, tensor.layer, expert);
      const GgufTensor* stored = file_.find(name);
      if (stored == nullptr)
        return make_error(ErrorCode::data_loss, "{}: tensor {} is missing", file_.path().string(), name);
      std::vector<int64_t> shape = tensor.shape;
      if (expert) shape.insert(shape.begin(), spec_.moe.experts);
      if (stored->shape != shape)
        return make_error(ErrorCode::data_loss, "{}: tensor {} is [{}], but the metadata say [{}]",
                          file_.path().string(), name, fmt::join(stored->shape, ", "), fmt::join(shape, ", "));
    }
    return {};
  }

  int64_t tp_blocks() const override { return blocks_; }
  void set_place(const ServePlace& place) override { place_ = place; }

  Result<Tensor> floats(Role role, int64_t layer) override {
    count();
    const Matrix m = matrix(role, layer, -1);
    const Extent box = own(role, layer);
    Tensor values = dequantised(m, box_of(box), options_.dtype);
    return box.size.size() == 1 ? values.view({-1}) : values;
  }

  Result<Linear> linear(std::vector<Role> roles, int64_t layer) override {
    if (roles.front() == Role::router) {
      TESSERA_ASSIGN_OR_RETURN(Tensor router, floats(Role::router, layer));
      return Linear(PackedWeight(router));
    }
    std::vector<QuantWeight> parts = columns(roles, layer, -1);
    if (!parts.empty()) return Linear(std::move(parts));
    return Linear(PackedWeight(float_columns(roles, layer, -1)));
  }

  Result<BlockLinear> blocks(Role role, int64_t layer) override {
    if (is_quantised(role, layer)) return BlockLinear(own_blocks(role, layer, -1));
    return BlockLinear(float_blocks(role, layer, -1));
  }

  Result<FeedForward> feed_forward(int64_t layer) override {
    const bool moe = spec_.is_moe(layer), few_bits = is_quantised(Role::gate, layer) &&
                                                     is_quantised(Role::up, layer) &&
                                                     is_quantised(Role::down, layer);
    std::vector<kernels::QuantFfn> quantised;
    std::vector<FeedForward::Floats> floats;
    for (int64_t e = moe ? place_.first_expert : -1; e < (moe ? place_.last_expert : 0); ++e) {
      if (few_bits) {
        auto gate_up = columns({Role::gate, Role::up}, layer, e);
        quantised.push_back({gate_up[0], gate_up[1], own_blocks(Role::down, layer, e)});
      } else {
        floats.push_back({PackedWeight(float_columns({Role::gate, Role::up}, layer, e)),
                          BlockLinear(float_blocks(Role::down, layer, e))});
      }
    }
    return few_bits ? FeedForward(std::move(quantised)) : FeedForward(std::move(floats));
  }

  Result<QuantWeight> quant_embedding() override {
    if (!is_quantised(Role::embedding, -1)) return QuantWeight();
    return columns({Role::embedding}, -1, -1)[0];
  }

  // Llama 3.1's slower rotations: what each frequency is divided by.
  Result<std::vector<float>> rope_divisors() override {
    const GgufTensor* stored = file_.find("rope_freqs.weight");
    std::vector<float> divisors;
    if (stored == nullptr) return divisors;
    if (stored->elements() != spec_.head_dim / 2 || quant_kind_of(stored->type))
      return make_error(ErrorCode::data_loss, "{}: rope_freqs.weight has {} elements, expected {} floats",
                        file_.path().string(), stored->elements(), spec_.head_dim / 2);
    divisors.resize(static_cast<size_t>(spec_.head_dim / 2));
    checkpoint::dequantize(stored->type, file_.row(*stored, 0), divisors);
    return divisors;
  }

 private:
  const TensorSpec& spec_of(Role role, int64_t layer) const { return shapes_.at({role, layer}); }
  const GgufTensor& stored(Role role, int64_t layer) const {
    return *file_.find(name_of(role, layer, spec_of(role, layer).expert >= 0));
  }
  bool is_quantised(Role role, int64_t layer) const {
    return quant_kind_of(stored(role, layer).type).has_value();
  }

  Matrix matrix(Role role, int64_t layer, int64_t expert) const {
    const auto& shape = spec_of(role, layer).shape;
    const bool vector = shape.size() == 1;
    Matrix m{file_, stored(role, layer), 0, vector ? 1 : shape[0], vector ? shape[0] : shape[1]};
    if (expert >= 0) m.first_row = expert * m.n;
    const bool paired =
        spec_.architecture == Architecture::llama || spec_.architecture == Architecture::mixtral;
    if (paired && (role == Role::q || role == Role::k)) m.paired_width = spec_.head_dim;
    return m;
  }
  Extent own(Role role, int64_t layer) const {
    return tp_extent(spec_of(role, layer), place_.tp, place_.tp_rank, blocks_);
  }
  static Box box_of(const Extent& e) {
    if (e.size.size() == 1) return {0, 1, e.offset[0], e.size[0]};
    return {e.offset[0], e.size[0], e.offset[1], e.size[1]};
  }

  // Empty when one of them is of floats.
  std::vector<QuantWeight> columns(const std::vector<Role>& roles, int64_t layer, int64_t expert) {
    std::vector<QuantWeight> parts;
    for (Role role : roles)
      if (!is_quantised(role, layer)) return parts;
    for (Role role : roles) {
      count();
      parts.push_back(packed(matrix(role, layer, expert), box_of(own(role, layer)), 1));
    }
    return parts;
  }
  Tensor float_columns(const std::vector<Role>& roles, int64_t layer, int64_t expert) {
    std::vector<Tensor> parts;
    for (Role role : roles) {
      count();
      parts.push_back(dequantised(matrix(role, layer, expert), box_of(own(role, layer)), options_.dtype));
    }
    return parts.size() == 1 ? parts[0] : at::cat(parts);
  }
  QuantWeight own_blocks(Role role, int64_t layer, int64_t expert) {
    count();
    return packed(matrix(role, layer, expert), box_of(own(role, layer)), blocks_ / place_.tp);
  }
  std::vector<PackedWeight> float_blocks(Role role, int64_t layer, int64_t expert) {
    count();
    const Box box = box_of(own(role, layer));
    const int64_t blocks = blocks_ / place_.tp, width = box.count / blocks;
    const Tensor values = dequantised(matrix(role, layer, expert), box, options_.dtype);
    std::vector<PackedWeight> parts;
    for (int64_t b = 0; b < blocks; ++b) parts.emplace_back(values.narrow(1, b * width, width).contiguous());
    return parts;
  }

  void count() {
    if (options_.progress) options_.progress(num_read_++, num_tensors_);
  }

  GgufFile file_;
  const ModelSpec& spec_;
  const LoadOptions& options_;
  int64_t blocks_;
  ServePlace place_;
  std::map<std::pair<Role, int64_t>, TensorSpec> shapes_;  // of an expert: of the first
  int64_t num_read_ = 0, num_tensors_ = 0;
};

}  // namespace

Result<std::unique_ptr<Weights>> open_gguf_weights(const std::filesystem::path& path, const ModelSpec& spec,
                                                   const LoadOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(GgufFile file, GgufFile::open(path));
  auto weights = std::make_unique<GgufWeights>(std::move(file), spec, options);
  TESSERA_RETURN_IF_ERROR(weights->check());
  return std::unique_ptr<Weights>(std::move(weights));
}

}  // namespace tessera::serve
