#include <ATen/ops/cat.h>

#include <map>
#include <tuple>

#include "checkpoint/weight_reader.h"
#include "layout/extents.h"
#include "serve/model.h"
#include "serve/torch_error.h"

namespace tessera::serve {

using at::Tensor;
using kernels::PackedWeight;

int64_t tp_blocks_of(const ModelSpec& spec) {
  auto divides_all = [&spec](int64_t blocks) {
    bool experts = spec.moe.experts == 0 || spec.moe.ffn % blocks == 0;
    return spec.heads % blocks == 0 && spec.kv_heads % blocks == 0 && spec.ffn % blocks == 0 && experts;
  };
  return divides_all(4) ? 4 : divides_all(2) ? 2 : 1;
}

// Reads the tensors of one rank by role and packs them.
class WeightLoader {
 public:
  WeightLoader(checkpoint::WeightReader& reader, ServedModel& model, const LoadOptions& options)
      : reader_(reader), model_(model), options_(options) {
    for (TensorSpec& tensor : inventory(model.spec_)) {
      auto key = std::tuple(tensor.role, tensor.layer, tensor.expert);
      tensors_.emplace(key, std::move(tensor));
    }
  }

  Status load() {
    TESSERA_ASSIGN_OR_RETURN(model_.embedding_, own(Role::embedding));
    for (int64_t layer = 0; layer < model_.spec_.layers; ++layer)
      TESSERA_RETURN_IF_ERROR(load_layer(layer, model_.layers_.emplace_back()));
    TESSERA_ASSIGN_OR_RETURN(model_.final_norm_, own(Role::final_norm));
    if (model_.spec_.tied) {
      model_.head_ = PackedWeight(model_.embedding_);
      return {};
    }
    TESSERA_ASSIGN_OR_RETURN(Tensor head, own(Role::head));
    model_.head_ = PackedWeight(head);
    return {};
  }

 private:
  Status load_layer(int64_t l, ServedModel::Layer& layer) {
    TESSERA_ASSIGN_OR_RETURN(layer.attention_norm, own(Role::attention_norm, l));
    TESSERA_ASSIGN_OR_RETURN(layer.ffn_norm, own(Role::ffn_norm, l));
    if (model_.spec_.qk_norm) {
      TESSERA_ASSIGN_OR_RETURN(layer.q_norm, own(Role::q_norm, l));
      TESSERA_ASSIGN_OR_RETURN(layer.k_norm, own(Role::k_norm, l));
    }
    TESSERA_ASSIGN_OR_RETURN(Tensor q, own(Role::q, l));
    TESSERA_ASSIGN_OR_RETURN(Tensor k, own(Role::k, l));
    TESSERA_ASSIGN_OR_RETURN(Tensor v, own(Role::v, l));
    layer.qkv = PackedWeight(at::cat({q, k, v}));
    TESSERA_ASSIGN_OR_RETURN(layer.o, blocks(Role::o, l, -1));
    return load_ffns(l, layer);
  }

  Status load_ffns(int64_t l, ServedModel::Layer& layer) {
    if (!model_.spec_.is_moe(l)) return load_ffn(l, -1, layer.ffns.emplace_back());
    TESSERA_ASSIGN_OR_RETURN(Tensor router, own(Role::router, l));
    layer.router = PackedWeight(router);
    for (int64_t expert = 0; expert < model_.spec_.moe.experts; ++expert)
      TESSERA_RETURN_IF_ERROR(load_ffn(l, expert, layer.ffns.emplace_back()));
    return {};
  }

  Status load_ffn(int64_t l, int64_t expert, ServedModel::Ffn& ffn) {
    TESSERA_ASSIGN_OR_RETURN(Tensor gate, own(Role::gate, l, expert));
    TESSERA_ASSIGN_OR_RETURN(Tensor up, own(Role::up, l, expert));
    ffn.gate_up = PackedWeight(at::cat({gate, up}));
    TESSERA_ASSIGN_OR_RETURN(ffn.down, blocks(Role::down, l, expert));
    return {};
  }

  // The part of a tensor that belongs to this rank.
  Result<Tensor> own(Role role, int64_t layer = -1, int64_t expert = -1) {
    const TensorSpec& tensor = find(role, layer, expert);
    return read(tensor, tp_extent(tensor, model_.tp(), model_.group_->rank(), model_.tp_blocks_));
  }

  // A row-parallel weight, one part for each tp block of this rank.
  Result<std::vector<PackedWeight>> blocks(Role role, int64_t layer, int64_t expert) {
    const TensorSpec& tensor = find(role, layer, expert);
    int64_t own_blocks = model_.tp_blocks_ / model_.tp(), first = model_.group_->rank() * own_blocks;
    std::vector<PackedWeight> parts;
    for (int64_t block = first; block < first + own_blocks; ++block) {
      TESSERA_ASSIGN_OR_RETURN(Tensor part,
                               read(tensor, tp_extent(tensor, model_.tp_blocks_, block, model_.tp_blocks_)));
      parts.emplace_back(part);
    }
    return parts;
  }

  Result<Tensor> read(const TensorSpec& tensor, const Extent& box) {
    if (options_.progress) options_.progress(num_read_, static_cast<int64_t>(tensors_.size()));
    if (last_read_ != tensor.name) ++num_read_;
    last_read_ = tensor.name;
    return reader_.read(tensor.name, box, options_.dtype);
  }

  const TensorSpec& find(Role role, int64_t layer, int64_t expert) const {
    return tensors_.at({role, layer, expert});
  }

  checkpoint::WeightReader& reader_;
  ServedModel& model_;
  const LoadOptions& options_;
  std::map<std::tuple<Role, int64_t, int64_t>, TensorSpec> tensors_;
  std::string last_read_;
  int64_t num_read_ = 0;
};

namespace {

Status check_degree(const ModelSpec& spec, int64_t tp, int64_t blocks) {
  if (blocks % tp == 0) return {};
  return invalid(
      "tp={} does not divide the {} blocks of this model's sums ({} heads, {} KV heads, FFN {}); use tp=1{}{}",
      tp, blocks, spec.heads, spec.kv_heads, spec.moe.experts > 0 ? spec.moe.ffn : spec.ffn,
      blocks >= 2 ? ", tp=2" : "", blocks >= 4 ? " or tp=4" : "");
}

}  // namespace

Result<ServedModel> ServedModel::load(const std::filesystem::path& directory, Group& group,
                                      const LoadOptions& options) {
  try {
    ServedModel model(group);
    TESSERA_ASSIGN_OR_RETURN(model.spec_, load_model_spec(directory));
    model.dtype_ = options.dtype;
    model.tp_blocks_ = tp_blocks_of(model.spec_);
    TESSERA_RETURN_IF_ERROR(check_degree(model.spec_, group.size(), model.tp_blocks_));
    model.padded_vocab_ = padded_vocab(model.spec_.vocab, model.tp_blocks_);
    auto frequencies = inverse_frequencies(model.spec_.rope, model.spec_.head_dim);
    model.rope_ = kernels::rope_table(frequencies, model.spec_.max_positions);
    TESSERA_ASSIGN_OR_RETURN(auto reader, checkpoint::WeightReader::open(directory));
    TESSERA_RETURN_IF_ERROR(reader.check_against(inventory(model.spec_)));
    TESSERA_RETURN_IF_ERROR(WeightLoader(reader, model, options).load());
    return model;
  } catch (const std::exception& failure) {
    return make_error(ErrorCode::internal, "cannot load {}: {}", directory.string(), text_of(failure));
  }
}

}  // namespace tessera::serve
