#include "checkpoint/packed.h"
#include "layout/extents.h"
#include "serve/gguf_model.h"
#include "serve/model.h"
#include "serve/torch_error.h"
#include "serve/weights.h"

namespace tessera::serve {

using at::Tensor;

int64_t tp_blocks_of(const ModelSpec& spec) {
  auto divides_all = [&spec](int64_t blocks) {
    bool experts = spec.moe.experts == 0 || spec.moe.ffn % blocks == 0;
    return spec.heads % blocks == 0 && spec.kv_heads % blocks == 0 && spec.ffn % blocks == 0 && experts;
  };
  return divides_all(4) ? 4 : divides_all(2) ? 2 : 1;
}

Result<kernels::KvType> kv_type_of(const LoadOptions& options) {
  const bool floats = options.dtype == at::kFloat;
  const auto own = floats ? kernels::KvType::f32 : kernels::KvType::bf16;
  if (!options.kv || *options.kv == own) return own;
  if (!floats && *options.kv != kernels::KvType::f32) return *options.kv;
  return invalid("keys and values in {} beside activations in {}; use --dtype bf16 with --kv bf16, int8 or fp8",
                 kernels::to_string(*options.kv), floats ? "float32" : "bf16");
}

// Fills a model with its weights.
class ModelBuilder {
 public:
  ModelBuilder(ServedModel& model, Weights& weights) : model_(model), weights_(weights) {}

  Status build() {
    const ServePlace& place = model_.place_;
    if (place.first_stage() || (place.last_stage() && model_.spec_.tied))
      TESSERA_RETURN_IF_ERROR(build_embedding());
    for (int64_t layer = place.layers.first; layer < place.layers.last; ++layer)
      TESSERA_RETURN_IF_ERROR(build_layer(layer, model_.layers_.emplace_back()));
    return place.last_stage() ? build_head() : Status();
  }

 private:
  Status build_embedding() {
    TESSERA_ASSIGN_OR_RETURN(model_.quant_embedding_, weights_.quant_embedding());
    if (model_.quant_embedding_.n() > 0) return {};
    TESSERA_ASSIGN_OR_RETURN(model_.embedding_, weights_.floats(Role::embedding));
    return {};
  }

  Status build_head() {
    TESSERA_ASSIGN_OR_RETURN(model_.final_norm_, weights_.floats(Role::final_norm));
    if (!model_.spec_.tied) {
      TESSERA_ASSIGN_OR_RETURN(model_.head_, weights_.linear({Role::head}));
    } else if (model_.quant_embedding_.n() > 0) {
      model_.head_ = Linear({model_.quant_embedding_});
    } else {
      model_.head_ = Linear(kernels::PackedWeight(model_.embedding_));
    }
    return {};
  }

  Status build_layer(int64_t l, ServedModel::Layer& layer) {
    TESSERA_ASSIGN_OR_RETURN(layer.attention_norm, weights_.floats(Role::attention_norm, l));
    TESSERA_ASSIGN_OR_RETURN(layer.ffn_norm, weights_.floats(Role::ffn_norm, l));
    if (model_.spec_.qk_norm) {
      TESSERA_ASSIGN_OR_RETURN(layer.q_norm, weights_.floats(Role::q_norm, l));
      TESSERA_ASSIGN_OR_RETURN(layer.k_norm, weights_.floats(Role::k_norm, l));
    }
    TESSERA_ASSIGN_OR_RETURN(layer.qkv, weights_.linear({Role::q, Role::k, Role::v}, l));
    TESSERA_ASSIGN_OR_RETURN(layer.o, weights_.blocks(Role::o, l));
    if (model_.spec_.is_moe(l)) {
      TESSERA_ASSIGN_OR_RETURN(layer.router, weights_.linear({Role::router}, l));
    }
    TESSERA_ASSIGN_OR_RETURN(layer.ffn, weights_.feed_forward(l));
    return {};
  }

  ServedModel& model_;
  Weights& weights_;
};

namespace {

Status check_degree(const ModelSpec& spec, int64_t tp, int64_t blocks) {
  if (blocks % tp == 0) return {};
  return invalid(
      "tp={} does not divide the {} blocks of this model's sums ({} heads, {} KV heads, FFN {}); use tp=1{}{}",
      tp, blocks, spec.heads, spec.kv_heads, spec.moe.experts > 0 ? spec.moe.ffn : spec.ffn,
      blocks >= 2 ? ", tp=2" : "", blocks >= 4 ? " or tp=4" : "");
}

Result<std::unique_ptr<Weights>> open_weights(const std::filesystem::path& model, const ModelSpec& spec,
                                              const LoadOptions& options) {
  if (checkpoint::GgufFile::is_at(model)) return open_gguf_weights(model, spec, options);
  if (checkpoint::PackedModel::is_at(model)) return open_packed_weights(model, spec, options);
  return open_float_weights(model, spec, options);
}

}  // namespace

Result<ServedModel> ServedModel::load(const std::filesystem::path& directory, const Layout& layout,
                                      int64_t rank, const LoadOptions& options) {
  try {
    ServedModel model;
    TESSERA_ASSIGN_OR_RETURN(model.spec_, load_served_spec(directory));
    TESSERA_RETURN_IF_ERROR(check_layout(model.spec_, layout));
    model.place_ = place_of(model.spec_, layout, rank);
    model.dtype_ = options.dtype;
    TESSERA_ASSIGN_OR_RETURN(model.kv_type_, kv_type_of(options));
    LoadOptions own = options;
    own.map_weights = options.map_weights || layout.processes() > 1;
    TESSERA_ASSIGN_OR_RETURN(auto weights, open_weights(directory, model.spec_, own));
    model.tp_blocks_ = weights->tp_blocks();
    if (tp_blocks_of(model.spec_) % model.tp_blocks_ != 0)
      return make_error(ErrorCode::data_loss,
                        "{}: sums cut in {} blocks do not fit config.json; export it again", directory.string(),
                        model.tp_blocks_);
    TESSERA_RETURN_IF_ERROR(check_degree(model.spec_, layout.tp, model.tp_blocks_));
    weights->set_place(model.place_);
    model.padded_vocab_ = padded_vocab(model.spec_.vocab, model.tp_blocks_);
    auto frequencies = inverse_frequencies(model.spec_.rope, model.spec_.head_dim);
    TESSERA_ASSIGN_OR_RETURN(auto divisors, weights->rope_divisors());
    for (size_t i = 0; i < divisors.size(); ++i) frequencies[i] /= divisors[i];
    model.rope_ = kernels::rope_table(frequencies, model.spec_.max_positions);
    TESSERA_RETURN_IF_ERROR(ModelBuilder(model, *weights).build());
    return model;
  } catch (const std::exception& failure) {
    return make_error(ErrorCode::internal, "cannot load {}: {}", directory.string(), text_of(failure));
  }
}

void ServedModel::connect(const RankGroups& groups) {
  TESSERA_REQUIRE(place_.tp == 1 || (groups.tp->size() == place_.tp && groups.tp->rank() == place_.tp_rank),
                  "a group that does not fit tp rank {} of {}", place_.tp_rank, place_.tp);
  groups_ = groups;
}

}  // namespace tessera::serve
