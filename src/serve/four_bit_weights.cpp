// A Hugging Face directory whose products are in 4 bits, as GPTQ or AWQ wrote them. Numbers are kept as they
// are; products of which one is in floats, or whose inputs stand in different orders, become floats together.
#include <ATen/ops/cat.h>

#include <map>
#include <tuple>

#include "layout/extents.h"
#include "serve/four_bit_format.h"
#include "serve/weights.h"

namespace tessera::serve {
namespace {

using at::Tensor;
using kernels::PackedWeight;
using kernels::QuantWeight;

std::string without_weight(const std::string& name) {
  constexpr std::string_view kEnd = ".weight";
  return name.ends_with(kEnd) ? name.substr(0, name.size() - kEnd.size()) : name;
}

// Inputs in an order of their own can not be cut, and blocks end between groups of 32.
int64_t blocks_of_groups(const ModelSpec& spec, bool ordered) {
  int64_t blocks = ordered ? 1 : tp_blocks_of(spec);
  auto fits = [&](int64_t k) { return k / blocks % kernels::kQuantGroup == 0; };
  while (blocks > 1 &&
         !(fits(spec.heads * spec.head_dim) && fits(spec.ffn) && (spec.moe.experts == 0 || fits(spec.moe.ffn))))
    blocks /= 2;
  return blocks;
}

bool same_order(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined();
  return a.equal(b);
}

class FourBitWeights : public Weights {
 public:
  FourBitWeights(checkpoint::WeightReader reader, const FourBitFormat& format, const ModelSpec& spec,
                 const LoadOptions& options)
      : reader_(std::move(reader)),
        format_(format),
        spec_(spec),
        options_(options),
        blocks_(blocks_of_groups(spec, format.by_activation)) {
    for (TensorSpec& tensor : inventory(spec)) {
      auto key = std::tuple(tensor.role, tensor.layer, tensor.expert);
      tensors_.emplace(key, std::move(tensor));
    }
  }

  // What is not in few bits is there in its shape; the rest is checked when it is read.
  Status check() const {
    std::vector<TensorSpec> floats;
    for (const auto& [key, tensor] : tensors_)
      if (!is_four_bit(reader_, without_weight(tensor.name))) floats.push_back(tensor);
    return reader_.check_against(floats);
  }

  int64_t tp_blocks() const override { return blocks_; }
  void set_place(const ServePlace& place) override { place_ = place; }

  Result<Tensor> floats(Role role, int64_t layer) override { return own_floats(role, layer, -1); }

  Result<Linear> linear(std::vector<Role> roles, int64_t layer) override {
    TESSERA_ASSIGN_OR_RETURN(auto parts, few_bits(roles, layer, -1));
    if (parts.empty()) {
      TESSERA_ASSIGN_OR_RETURN(PackedWeight weight, float_columns(roles, layer, -1));
      return Linear(std::move(weight));
    }
    return Linear(columns(parts), parts[0].order);
  }

  Result<BlockLinear> blocks(Role role, int64_t layer) override {
    TESSERA_ASSIGN_OR_RETURN(auto parts, few_bits({role}, layer, -1));
    if (parts.empty()) return float_blocks(role, layer, -1);
    return BlockLinear(own_blocks(parts[0]), parts[0].order);
  }

  Result<FeedForward> feed_forward(int64_t layer) override {
    std::vector<kernels::QuantFfn> quantised;
    std::vector<FeedForward::Floats> floats;
    std::vector<Tensor> orders;
    const bool moe = spec_.is_moe(layer);
    for (int64_t e = moe ? place_.first_expert : -1; e < (moe ? place_.last_expert : 0); ++e) {
      TESSERA_ASSIGN_OR_RETURN(auto gate_up, few_bits({Role::gate, Role::up}, layer, e));
      TESSERA_ASSIGN_OR_RETURN(auto down, few_bits({Role::down}, layer, e));
      if (gate_up.empty() || down.empty()) {
        FeedForward::Floats& ffn = floats.emplace_back();
        TESSERA_ASSIGN_OR_RETURN(ffn.gate_up, float_columns({Role::gate, Role::up}, layer, e));
        TESSERA_ASSIGN_OR_RETURN(ffn.down, float_blocks(Role::down, layer, e));
        continue;
      }
      // What gate and up give comes in the order in which down takes it.
      if (down[0].order.defined())
        for (FourBitWeight& part : gate_up) part = part.with_rows(down[0].order);
      auto packed = columns(gate_up);
      quantised.push_back({packed[0], packed[1], own_blocks(down[0])});
      orders.push_back(gate_up[0].order);
    }
    if (!floats.empty() && !quantised.empty())
      return invalid("layer {}: some experts are in 4 bits and some in floats", layer);
    if (!floats.empty()) return FeedForward(std::move(floats));
    return FeedForward(std::move(quantised), std::move(orders));
  }

 private:
  const TensorSpec& find(Role role, int64_t layer, int64_t expert) const {
    return tensors_.at({role, layer, expert});
  }

  // Empty unless all are in few bits with their inputs in one order.
  Result<std::vector<FourBitWeight>> few_bits(const std::vector<Role>& roles, int64_t layer, int64_t expert) {
    std::vector<FourBitWeight> parts;
    for (Role role : roles) {
      const TensorSpec& tensor = find(role, layer, expert);
      const std::string name = without_weight(tensor.name);
      if (tensor.shape.size() != 2 || !is_four_bit(reader_, name)) return std::vector<FourBitWeight>();
      count();
      TESSERA_ASSIGN_OR_RETURN(auto part,
                               read_four_bit(reader_, format_, name, tensor.shape[0], tensor.shape[1]));
      if (!parts.empty() && !same_order(parts[0].order, part.order)) return std::vector<FourBitWeight>();
      parts.push_back(std::move(part));
    }
    return parts;
  }

  // Rows of this rank.
  std::vector<QuantWeight> columns(const std::vector<FourBitWeight>& parts) const {
    std::vector<QuantWeight> out;
    for (const FourBitWeight& part : parts) {
      const int64_t rows = part.n() / place_.tp;
      out.push_back(part.packed(place_.tp_rank * rows, rows, 0, part.k(), 1));
    }
    return out;
  }
  // Blocks of this rank.
  QuantWeight own_blocks(const FourBitWeight& part) const {
    const int64_t width = part.k() / place_.tp;
    return part.packed(0, part.n(), place_.tp_rank * width, width, blocks_ / place_.tp);
  }

  // The part of this rank in floats, whatever is stored.
  Result<Tensor> own_floats(Role role, int64_t layer, int64_t expert) {
    const TensorSpec& tensor = find(role, layer, expert);
    const Extent box = tp_extent(tensor, place_.tp, place_.tp_rank, blocks_);
    count();
    const std::string name = without_weight(tensor.name);
    if (!is_four_bit(reader_, name)) return reader_.read(tensor.name, box, options_.dtype);
    TESSERA_ASSIGN_OR_RETURN(auto part,
                             read_four_bit(reader_, format_, name, tensor.shape[0], tensor.shape[1]));
    Tensor values = part.dequantised();
    for (int64_t dim = 0; dim < 2; ++dim) {
      const auto at = static_cast<size_t>(dim);
      values = values.narrow(dim, box.offset[at], box.size[at]);
    }
    return values.contiguous().to(options_.dtype);
  }
  Result<PackedWeight> float_columns(const std::vector<Role>& roles, int64_t layer, int64_t expert) {
    std::vector<Tensor> parts;
    for (Role role : roles) {
      TESSERA_ASSIGN_OR_RETURN(Tensor part, own_floats(role, layer, expert));
      parts.push_back(part);
    }
    return PackedWeight(parts.size() == 1 ? parts[0] : at::cat(parts));
  }
  Result<BlockLinear> float_blocks(Role role, int64_t layer, int64_t expert) {
    TESSERA_ASSIGN_OR_RETURN(Tensor values, own_floats(role, layer, expert));
    const int64_t own = blocks_ / place_.tp, width = values.size(1) / own;
    std::vector<PackedWeight> parts;
    for (int64_t b = 0; b < own; ++b) parts.emplace_back(values.narrow(1, b * width, width).contiguous());
    return BlockLinear(std::move(parts));
  }

  void count() {
    if (options_.progress) options_.progress(std::min(num_read_++, std::ssize(tensors_)), std::ssize(tensors_));
  }

  checkpoint::WeightReader reader_;
  FourBitFormat format_;
  const ModelSpec& spec_;
  const LoadOptions& options_;
  int64_t blocks_;
  ServePlace place_;
  std::map<std::tuple<Role, int64_t, int64_t>, TensorSpec> tensors_;
  int64_t num_read_ = 0;
};

}  // namespace

Result<std::unique_ptr<Weights>> open_four_bit_weights(const std::filesystem::path& directory,
                                                       const FourBitFormat& format, const ModelSpec& spec,
                                                       const LoadOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(auto reader, checkpoint::WeightReader::open(directory));
  auto weights = std::make_unique<FourBitWeights>(std::move(reader), format, spec, options);
  TESSERA_RETURN_IF_ERROR(weights->check());
  return std::unique_ptr<Weights>(std::move(weights));
}

}  // namespace tessera::serve
