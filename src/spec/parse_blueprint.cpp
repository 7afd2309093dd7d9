#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/file.h"
#include "spec/blueprint.h"
#include "spec/read_layers.h"

namespace tessera {
namespace {

using nlohmann::json;

// The object that describes the language model: multimodal files nest it. What the outer object says about
// tying, quantisation and types holds for it too. DBRX nests attention and FFN.
Result<json> language_part(const json& config) {
  if (!config.is_object()) return invalid("config.json: got {}, expected a JSON object", config.type_name());
  json inner = config;
  for (const char* key : {"text_config", "llm_config", "language_config", "thinker_config"}) {
    if (!config.contains(key)) continue;
    if (!config[key].is_object())
      return invalid("config.json: field '{}': got {}, expected an object", key, config[key].type_name());
    if (config[key].contains("text_config")) return language_part(config[key]);
    inner = config[key];
    for (const char* shared : {"model_type", "quantization_config", "torch_dtype", "dtype", "architectures"})
      if (!inner.contains(shared) && config.contains(shared)) inner[shared] = config[shared];
    if (config.contains("tie_word_embeddings")) inner["tie_word_embeddings"] = config["tie_word_embeddings"];
    break;
  }
  for (const char* key : {"attn_config", "ffn_config"})
    if (inner.contains(key) && inner[key].is_object()) {
      json nested = inner[key];
      for (const auto& [name, value] : nested.items())
        if (!inner.contains(name)) inner[name] = value;
    }
  return inner;
}

int64_t norms_per_layer(ConfigReader& r) {
  if (r.type == "falcon") {
    if (r.fields.flag_or({"new_decoder_architecture"}, false))
      return r.fields.count_or({"num_ln_in_parallel_attn"}, 2);
    return r.fields.flag_or({"parallel_attn"}, true) ? 1 : 2;
  }
  if (r.type == "stablelm" && r.fields.flag_or({"use_parallel_residual"}, false)) return 1;
  if (r.family.norm == NormKind::none) return 0;
  return r.family.norms;
}

void read_norms(ConfigReader& r, Blueprint& model) {
  bool rms = r.fields.present("rms_norm_eps");
  bool layer_norm =
      !rms && !r.family.known && (r.fields.present("layer_norm_eps") || r.fields.present("layer_norm_epsilon"));
  model.norm_bias = layer_norm || r.family.norm == NormKind::layer_norm;
  if (r.type == "mpt") model.norm_bias = !r.fields.flag_or({"no_bias"}, true);
  model.outer_norms = r.family.outer_norms;
  if (r.type == "opt" && !r.fields.flag_or({"do_layer_norm_before"}, true)) model.outer_norms = 0;
}

void read_positions(ConfigReader& r, Blueprint& model) {
  model.max_positions =
      r.fields.positive_or({"max_position_embeddings", "n_positions", "seq_length", "max_seq_len"}, 2048);
  bool learned = r.family.position_offset >= 0;
  if (r.type == "esm") learned = r.fields.text_or("position_embedding_type", "absolute") == "absolute";
  if (learned) model.learned_positions = model.max_positions + r.family.position_offset;
}

// A masked language model ends in a dense layer, a norm and a biased decoder tied to the embedding; ESM adds a
// regression over attention maps.
void read_ends(ConfigReader& r, Blueprint& model) {
  ConfigFields& f = r.fields;
  int64_t h = model.hidden;
  if (r.is({"gptj", "codegen", "phi"}) || (r.type == "phimoe" && f.flag_or({"lm_head_bias"}, false)))
    model.head_extra = model.vocab;
  if (r.family.encoder) {
    model.causal = false;
    model.embedding_extra = r.type == "esm" ? 0 : f.count_or({"type_vocab_size"}, 0) * h;
    model.head_extra = h * h + 3 * h + model.vocab;
    if (r.type == "esm") {
      int64_t heads = f.positive({"num_attention_heads"});
      model.head_extra += r.layers * heads + 1;
      if (f.flag_or({"emb_layer_norm_before"}, false)) ++model.outer_norms;
    }
  }
  if (int64_t streams = f.count_or({"hc_mult"}, 0); streams > 0)
    model.head_extra = streams * streams * h + streams + 1;
  if (f.positive_or({"word_embed_proj_dim"}, h) != h)
    f.fail("word_embed_proj_dim", "embeddings narrower than the hidden size are not supported");
}

void refuse_what_layers_cannot_say(ConfigReader& r) {
  ConfigFields& f = r.fields;
  for (const std::string& kind :
       f.present("mamba_num_heads") ? std::vector<std::string>{} : f.texts("layer_types"))
    if (!kind.ends_with("attention") && !kind.ends_with("sparse"))
      f.fail("layer_types", fmt::format("layers of kind '{}' are not supported", kind));
  f.refuse("is_encoder_decoder", f.flag_or({"is_encoder_decoder"}, false),
           "models with an encoder and a decoder are not supported");
  f.refuse("hidden_size_per_layer_input", f.count_or({"hidden_size_per_layer_input"}, 0) > 0,
           "embeddings per layer are not supported");
  if (std::string why = refusal_of(r.type); !why.empty())
    f.fail("model_type", fmt::format("'{}' has {}, which is not supported", r.type, why));
}

std::vector<Layer> read_layers(ConfigReader& r) {
  std::vector<Layer> blocks = read_block_list(r);
  if (!blocks.empty()) return blocks;
  auto mixers = read_mixers(r);
  auto ffns = read_ffns(r);
  int64_t streams = r.fields.count_or({"hc_mult"}, 0);
  for (size_t i = 0; i < ffns.size() && i < mixers.size(); ++i) {
    Layer layer{.mixer = mixers[i], .ffn = ffns[i], .norms = norms_per_layer(r)};
    bool gemma_moe = r.is({"gemma4", "gemma4_text"}) && layer.ffn.kind == FfnKind::moe;
    if (gemma_moe) layer.norms += 3;
    if (streams > 0) {  // two hyper-connections: to and from the streams, and their mixing
      layer.residual_streams = streams;
      layer.residual_mixing = 2 * ((2 + streams) * streams * (streams * r.hidden + 1) + 3);
    }
    blocks.push_back(layer);
  }
  return blocks;
}

// A module looks like a block with attention and the model's last kind of FFN.
void read_mtp(ConfigReader& r, Blueprint& model) {
  ConfigFields& f = r.fields;
  int64_t modules = f.count_or({"num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules"}, 0);
  if (!f.flag_or({"use_mtp"}, true) || modules > 64 || model.layers() == 0) return;
  Layer module;
  for (int32_t kind : model.order) {
    const Layer& layer = model.kinds[static_cast<size_t>(kind)];
    bool attends = layer.mixer.kind != MixerKind::none && layer.mixer.kind != MixerKind::mamba2 &&
                   layer.mixer.kind != MixerKind::linear_attention;
    if (attends) module.mixer = layer.mixer;
    if (layer.ffn.kind != FfnKind::none) module.ffn = layer.ffn;
  }
  model.mtp.assign(static_cast<size_t>(modules), module);
}

int64_t layer_count(ConfigFields& fields) {
  auto pattern = fields.text_or("hybrid_override_pattern", "");
  auto blocks = fields.texts("layers_block_type");
  if (!pattern.empty()) return static_cast<int64_t>(pattern.size());
  if (!blocks.empty()) return static_cast<int64_t>(blocks.size());
  return fields.positive({"num_hidden_layers", "n_layer", "n_layers", "num_layers"});
}

Result<Blueprint> checked_blueprint(const json& config) {
  TESSERA_ASSIGN_OR_RETURN(json part, language_part(config));
  ConfigFields fields(part);
  std::string type = fields.text_or("model_type", "");
  if (type.empty())
    return invalid("config.json: field 'model_type' is missing; it names the architecture, such as \"llama\"");
  Family family = family_of(type);
  ConfigReader r{fields, family, type};
  refuse_what_layers_cannot_say(r);
  if (fields.error()) return *fields.error();
  Blueprint model;
  model.name = model.architecture = type;
  model.by_fields_only = !family.known;
  model.hidden = r.hidden = fields.positive({"hidden_size", "n_embd", "d_model", "n_embed"});
  model.vocab = fields.positive({"vocab_size"});
  r.layers = layer_count(fields);
  if (r.layers > 10000)
    fields.fail("num_hidden_layers", fmt::format("got {}, expected at most 10000", r.layers));
  if (fields.error()) return *fields.error();
  model.tied = fields.flag_or({"tie_word_embeddings"}, family.tied);
  read_norms(r, model);
  read_positions(r, model);
  for (const Layer& layer : read_layers(r)) model.append(layer);
  read_ends(r, model);
  read_mtp(r, model);
  read_formats(fields, model);
  if (fields.error()) return *fields.error();
  if (tally(model).total > 1e16)
    return invalid("config.json: {:.3g} parameters; are the sizes right?", tally(model).total);
  return model;
}

// Python writes Infinity and NaN into JSON, which has neither; nothing that is read here needs their values.
void drop_python_numbers(std::string& text) {
  for (const char* word : {"-Infinity", "Infinity", "NaN"})
    for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) {
      bool is_value = at > 0 && std::string_view(" :,[\n").find(text[at - 1]) != std::string_view::npos;
      if (is_value) text.replace(at, std::string_view(word).size(), "null");
    }
}

}  // namespace

bool ConfigReader::is(std::initializer_list<const char*> types) const {
  return std::any_of(types.begin(), types.end(), [&](const char* name) { return type == name; });
}

std::vector<int64_t> ConfigReader::integers_per_layer(const char* name) {
  auto list = fields.integers(name);
  if (!list.empty() && static_cast<int64_t>(list.size()) < layers)
    return fields.fail(name, fmt::format("{} entries for {} layers", list.size(), layers)),
           std::vector<int64_t>();
  if (!list.empty()) list.resize(static_cast<size_t>(layers));
  return list;
}

std::vector<std::string> ConfigReader::texts_per_layer(const char* name) {
  auto list = fields.texts(name);
  if (!list.empty() && static_cast<int64_t>(list.size()) < layers)
    return fields.fail(name, fmt::format("{} entries for {} layers", list.size(), layers)),
           std::vector<std::string>();
  if (!list.empty()) list.resize(static_cast<size_t>(layers));
  return list;
}

Result<Blueprint> parse_blueprint(const json& config) {
  try {
    return checked_blueprint(config);
  } catch (const json::exception& error) {  // a field of a type that no check above foresaw
    return invalid("config.json: {}", error.what());
  }
}

Result<Blueprint> load_blueprint(const std::filesystem::path& path) {
  auto file = std::filesystem::is_directory(path) ? path / "config.json" : path;
  TESSERA_ASSIGN_OR_RETURN(std::string text, read_file(file));
  drop_python_numbers(text);
  json config = json::parse(text, nullptr, false);
  if (config.is_discarded()) return invalid("{}: not valid JSON", file.string());
  auto model = parse_blueprint(config);
  if (!model) return model.error().within(file.string());
  model->name =
      file.filename() == "config.json" ? file.parent_path().filename().string() : file.stem().string();
  return model;
}

}  // namespace tessera
