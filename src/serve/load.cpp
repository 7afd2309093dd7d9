#include "checkpoint/packed.h"
#include "layout/extents.h"
#include "serve/four_bit_format.h"
#include "serve/gguf_model.h"
#include "serve/model.h"
#include "serve/served_families.h"
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

namespace {

Error no_mtp() {
  return invalid(
      "the model has no multi-token-prediction layer (num_nextn_predict_layers of a DeepSeek-V3, and its "
      "eh_proj); "
      "guess with --guess N or --draft MODEL");
}

}  // namespace

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
    TESSERA_ASSIGN_OR_RETURN(model_.final_norm_.weight, weights_.floats(Role::final_norm));
    if (!model_.spec_.tied) {
      TESSERA_ASSIGN_OR_RETURN(model_.head_, weights_.linear({Role::head}));
    } else if (model_.quant_embedding_.n() > 0) {
      model_.head_ = Linear({model_.quant_embedding_});
    } else {
      model_.head_ = Linear(kernels::PackedWeight(model_.embedding_));
    }
    return {};
  }

  Status build_layer(int64_t l, ServedLayer& layer) {
    TESSERA_ASSIGN_OR_RETURN(layer.attention_norm.weight, weights_.floats(Role::attention_norm, l));
    TESSERA_ASSIGN_OR_RETURN(layer.ffn_norm.weight, weights_.floats(Role::ffn_norm, l));
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

// Fills a model of a family that is only served.
class FamilyBuilder {
 public:
  FamilyBuilder(ServedModel& model, NamedWeights& weights)
      : model_(model), weights_(weights), names_(outer_names(model.spec_.family, weights)) {}

  Status build() {
    const ServedSpec& spec = model_.spec_;
    const ServePlace& place = model_.place_;
    if (place.first_stage()) TESSERA_RETURN_IF_ERROR(build_embedding());
    for (int64_t layer = place.layers.first; layer < place.layers.last; ++layer) {
      TESSERA_ASSIGN_OR_RETURN(ServedLayer read, layer_reader(spec.family)(weights_, spec, layer));
      model_.layers_.push_back(std::move(read));
    }
    return place.last_stage() ? build_head() : Status();
  }

  Status build_mtp() {
    const ServedSpec& spec = model_.spec_;
    // config.json may name a layer that the files do not have.
    if (spec.family != Family::deepseek || spec.mtp_layers == 0 || !has_deepseek_mtp(weights_, spec))
      return no_mtp();
    TESSERA_ASSIGN_OR_RETURN(model_.mtp_, deepseek_mtp(weights_, spec));
    return {};
  }

 private:
  std::vector<int64_t> words() const { return {model_.spec_.vocab, model_.spec_.hidden}; }

  Status build_embedding() {
    TESSERA_ASSIGN_OR_RETURN(Tensor embedding, weights_.read(names_.embedding, words()));
    model_.embedding_ = weights_.own_vocab(embedding);
    if (names_.positions.empty()) return {};
    TESSERA_ASSIGN_OR_RETURN(
        model_.positions_, weights_.read(names_.positions, {model_.spec_.max_positions, model_.spec_.hidden}));
    return {};
  }

  Status build_head() {
    TESSERA_ASSIGN_OR_RETURN(model_.final_norm_, weights_.norm(names_.final_norm, model_.spec_.hidden));
    if (names_.head.empty()) return {};
    TESSERA_ASSIGN_OR_RETURN(Tensor head,
                             weights_.read(model_.spec_.tied ? names_.embedding : names_.head, words()));
    model_.head_ = Linear(kernels::PackedWeight(weights_.own_vocab(head)));
    return {};
  }

  ServedModel& model_;
  NamedWeights& weights_;
  OuterNames names_;
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
  TESSERA_ASSIGN_OR_RETURN(auto few_bits, four_bit_format_of(model));
  if (few_bits) return open_four_bit_weights(model, *few_bits, spec, options);
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
    if (options.mtp && layout.processes() > 1)
      return invalid("the multi-token-prediction layer is served on one process, but --layout {} makes {}",
                     to_string(layout), layout.processes());
    if (options.mtp && model.spec_.family == Family::trained) return no_mtp().within(directory.string());
    LoadOptions own = options;
    own.map_weights = options.map_weights || layout.processes() > 1;
    if (model.spec_.family != Family::trained) {
      TESSERA_RETURN_IF_ERROR(load_family(model, directory, own));
      return model;
    }
    TESSERA_ASSIGN_OR_RETURN(auto weights, open_weights(directory, model.spec_, own));
    model.tp_blocks_ = weights->tp_blocks();
    if (tp_blocks_of(model.spec_) % model.tp_blocks_ != 0)
      return make_error(ErrorCode::data_loss,
                        "{}: sums cut in {} blocks do not fit config.json; export it again", directory.string(),
                        model.tp_blocks_);
    TESSERA_RETURN_IF_ERROR(check_degree(model.spec_, layout.tp, model.tp_blocks_));
    weights->set_place(model.place_);
    model.padded_vocab_ = padded_vocab(model.spec_.vocab, model.tp_blocks_);
    TESSERA_ASSIGN_OR_RETURN(auto divisors, weights->rope_divisors());
    model.rope_ = model.spec_.rope_table(divisors);
    TESSERA_RETURN_IF_ERROR(ModelBuilder(model, *weights).build());
    return model;
  } catch (const std::exception& failure) {
    return make_error(ErrorCode::internal, "cannot load {}: {}", directory.string(), text_of(failure));
  }
}

Status ServedModel::load_family(ServedModel& model, const std::filesystem::path& directory,
                                const LoadOptions& options) {
  model.tp_blocks_ = tp_blocks_of(model.spec_);
  TESSERA_RETURN_IF_ERROR(check_degree(model.spec_, model.tp(), model.tp_blocks_));
  model.padded_vocab_ = padded_vocab(model.spec_.vocab, model.tp_blocks_);
  if (model.spec_.rotary) model.rope_ = model.spec_.rope_table({});
  TESSERA_ASSIGN_OR_RETURN(auto weights, NamedWeights::open(directory, model.spec_, model.place_, options));
  FamilyBuilder builder(model, weights);
  Status built = builder.build();
  if (built.ok() && options.mtp) built = builder.build_mtp();
  return built.ok() ? built : built.error().within(directory.string());
}

Status ServedModel::add_adapter(const std::string& name, const std::filesystem::path& directory) {
  if (place_.tp * place_.stages * place_.replicas > 1)
    return invalid("adapter {}: adapters are served on one process; leave out --layout", name);
  TESSERA_ASSIGN_OR_RETURN(LoraAdapter adapter, load_lora(name, directory, spec_, dtype_));
  adapters_.push_back(std::move(adapter));
  return {};
}

void ServedModel::connect(const RankGroups& groups) {
  TESSERA_REQUIRE(place_.tp == 1 || (groups.tp->size() == place_.tp && groups.tp->rank() == place_.tp_rank),
                  "a group that does not fit tp rank {} of {}", place_.tp_rank, place_.tp);
  groups_ = groups;
}

}  // namespace tessera::serve
