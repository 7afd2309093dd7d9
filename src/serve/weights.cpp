#include "serve/weights.h"

#include <ATen/ops/cat.h>

#include <map>
#include <tuple>

#include "checkpoint/packed.h"
#include "checkpoint/weight_reader.h"
#include "layout/extents.h"

namespace tessera::serve {

using at::Tensor;
using kernels::PackedWeight;
using kernels::QuantWeight;

namespace {

// The tensors of a model by what they are for.
class Inventory {
 public:
  explicit Inventory(const ModelSpec& spec) {
    for (TensorSpec& tensor : inventory(spec)) {
      auto key = std::tuple(tensor.role, tensor.layer, tensor.expert);
      tensors_.emplace(key, std::move(tensor));
    }
  }
  const TensorSpec& find(Role role, int64_t layer, int64_t expert = -1) const {
    return tensors_.at({role, layer, expert});
  }
  int64_t count() const { return static_cast<int64_t>(tensors_.size()); }

 private:
  std::map<std::tuple<Role, int64_t, int64_t>, TensorSpec> tensors_;
};

class FloatWeights : public Weights {
 public:
  FloatWeights(checkpoint::WeightReader reader, const ModelSpec& spec, const LoadOptions& options)
      : reader_(std::move(reader)),
        spec_(spec),
        inventory_(spec),
        options_(options),
        tp_blocks_(tp_blocks_of(spec)) {}

  int64_t tp_blocks() const override { return tp_blocks_; }
  void set_place(const ServePlace& place) override { place_ = place; }

  Result<Tensor> floats(Role role, int64_t layer) override { return own(role, layer, -1); }

  Result<Linear> linear(std::vector<Role> roles, int64_t layer) override {
    TESSERA_ASSIGN_OR_RETURN(PackedWeight weight, columns(std::move(roles), layer, -1));
    return Linear(std::move(weight));
  }

  Result<BlockLinear> blocks(Role role, int64_t layer) override { return blocks(role, layer, -1); }

  Result<FeedForward> feed_forward(int64_t layer) override {
    std::vector<FeedForward::Floats> experts;
    const bool moe = spec_.is_moe(layer);
    for (int64_t e = moe ? place_.first_expert : 0; e < (moe ? place_.last_expert : 1); ++e) {
      FeedForward::Floats& ffn = experts.emplace_back();
      TESSERA_ASSIGN_OR_RETURN(ffn.gate_up, columns({Role::gate, Role::up}, layer, moe ? e : -1));
      TESSERA_ASSIGN_OR_RETURN(ffn.down, blocks(Role::down, layer, moe ? e : -1));
    }
    return FeedForward(std::move(experts));
  }

 private:
  Result<PackedWeight> columns(std::vector<Role> roles, int64_t layer, int64_t expert) {
    std::vector<Tensor> parts;
    for (Role role : roles) {
      TESSERA_ASSIGN_OR_RETURN(Tensor part, own(role, layer, expert));
      parts.push_back(part);
    }
    return PackedWeight(parts.size() == 1 ? parts[0] : at::cat(parts));
  }

  // One part for each tp block of this rank.
  Result<BlockLinear> blocks(Role role, int64_t layer, int64_t expert) {
    const TensorSpec& tensor = inventory_.find(role, layer, expert);
    int64_t own_blocks = tp_blocks_ / place_.tp, first = place_.tp_rank * own_blocks;
    std::vector<PackedWeight> parts;
    for (int64_t block = first; block < first + own_blocks; ++block) {
      TESSERA_ASSIGN_OR_RETURN(Tensor part, read(tensor, tp_extent(tensor, tp_blocks_, block, tp_blocks_)));
      parts.emplace_back(part);
    }
    return BlockLinear(std::move(parts));
  }

  // The part of a tensor that belongs to this rank.
  Result<Tensor> own(Role role, int64_t layer, int64_t expert) {
    const TensorSpec& tensor = inventory_.find(role, layer, expert);
    return read(tensor, tp_extent(tensor, place_.tp, place_.tp_rank, tp_blocks_));
  }

  Result<Tensor> read(const TensorSpec& tensor, const Extent& box) {
    if (options_.progress) options_.progress(num_read_, inventory_.count());
    if (last_read_ != tensor.name) ++num_read_;
    last_read_ = tensor.name;
    return reader_.read(tensor.name, box, options_.dtype);
  }

  checkpoint::WeightReader reader_;
  const ModelSpec& spec_;
  Inventory inventory_;
  const LoadOptions& options_;
  int64_t tp_blocks_;
  ServePlace place_;
  std::string last_read_;
  int64_t num_read_ = 0;
};

// Views of the mapped file. What is small and read as floats is converted to the type of the activations.
class PackedWeights : public Weights {
 public:
  PackedWeights(checkpoint::PackedModel model, const ModelSpec& spec, const LoadOptions& options)
      : model_(std::move(model)), spec_(spec), inventory_(spec), dtype_(options.dtype) {}

  int64_t tp_blocks() const override { return model_.tp_blocks(); }
  void set_place(const ServePlace& place) override { place_ = place; }

  Result<Tensor> floats(Role role, int64_t layer) override {
    const TensorSpec& tensor = inventory_.find(role, layer);
    TESSERA_ASSIGN_OR_RETURN(Tensor whole, model_.floats(tensor.name));
    // The embedding stays as it is stored: its rows are looked up.
    if (role == Role::embedding) {
      const Extent box = own(tensor);
      return whole.narrow(0, box.offset[0], box.size[0]);
    }
    return whole.to(dtype_);
  }

  Result<Linear> linear(std::vector<Role> roles, int64_t layer) override {
    if (roles.front() == Role::router) {
      TESSERA_ASSIGN_OR_RETURN(Tensor router, floats(Role::router, layer));
      return Linear(PackedWeight(router));
    }
    std::vector<QuantWeight> parts;
    for (Role role : roles) {
      TESSERA_ASSIGN_OR_RETURN(QuantWeight part, columns(role, layer, -1));
      parts.push_back(std::move(part));
    }
    return Linear(std::move(parts));
  }

  Result<BlockLinear> blocks(Role role, int64_t layer) override {
    TESSERA_ASSIGN_OR_RETURN(QuantWeight weight, blocks(role, layer, -1));
    return BlockLinear(std::move(weight));
  }

  Result<FeedForward> feed_forward(int64_t layer) override {
    std::vector<kernels::QuantFfn> experts;
    const bool moe = spec_.is_moe(layer);
    for (int64_t e = moe ? place_.first_expert : 0; e < (moe ? place_.last_expert : 1); ++e) {
      kernels::QuantFfn& ffn = experts.emplace_back();
      TESSERA_ASSIGN_OR_RETURN(ffn.gate, columns(Role::gate, layer, moe ? e : -1));
      TESSERA_ASSIGN_OR_RETURN(ffn.up, columns(Role::up, layer, moe ? e : -1));
      TESSERA_ASSIGN_OR_RETURN(ffn.down, blocks(Role::down, layer, moe ? e : -1));
    }
    return FeedForward(std::move(experts));
  }

  Result<QuantWeight> quant_embedding() override {
    if (!model_.is_quantised(inventory_.find(Role::embedding, -1).name)) return QuantWeight();
    return columns(Role::embedding, -1, -1);
  }

 private:
  Extent own(const TensorSpec& tensor) const {
    return tp_extent(tensor, place_.tp, place_.tp_rank, tp_blocks());
  }

  Result<QuantWeight> columns(Role role, int64_t layer, int64_t expert) {
    const TensorSpec& tensor = inventory_.find(role, layer, expert);
    TESSERA_ASSIGN_OR_RETURN(QuantWeight whole, model_.weight(tensor.name));
    const Extent box = own(tensor);
    return whole.any_rows(box.offset[0], box.size[0]);
  }

  Result<QuantWeight> blocks(Role role, int64_t layer, int64_t expert) {
    const TensorSpec& tensor = inventory_.find(role, layer, expert);
    TESSERA_ASSIGN_OR_RETURN(QuantWeight whole, model_.weight(tensor.name));
    const int64_t own_blocks = tp_blocks() / place_.tp;
    if (whole.blocks() != tp_blocks())
      return make_error(ErrorCode::data_loss, "{} is cut in {} blocks, the model in {}; export it again",
                        tensor.name, whole.blocks(), tp_blocks());
    return whole.block_range(place_.tp_rank * own_blocks, own_blocks);
  }

  checkpoint::PackedModel model_;
  const ModelSpec& spec_;
  Inventory inventory_;
  at::ScalarType dtype_;
  ServePlace place_;
};

}  // namespace

Result<std::unique_ptr<Weights>> open_float_weights(const std::filesystem::path& directory,
                                                    const ModelSpec& spec, const LoadOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(auto reader, checkpoint::WeightReader::open(directory));
  TESSERA_RETURN_IF_ERROR(reader.check_against(inventory(spec)));
  return std::unique_ptr<Weights>(new FloatWeights(std::move(reader), spec, options));
}

Result<std::unique_ptr<Weights>> open_packed_weights(const std::filesystem::path& directory,
                                                     const ModelSpec& spec, const LoadOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(auto reader, checkpoint::WeightReader::open(directory));
  TESSERA_RETURN_IF_ERROR(reader.check_against(inventory(spec)));
  TESSERA_ASSIGN_OR_RETURN(auto model, checkpoint::PackedModel::open(directory));
  if (options.map_weights || !model.copy_to_large_pages()) model.read_ahead();
  return std::unique_ptr<Weights>(new PackedWeights(std::move(model), spec, options));
}

}  // namespace tessera::serve
