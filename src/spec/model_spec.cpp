#include "spec/model_spec.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "core/file.h"
#include "core/nearest.h"
#include "spec/model_dimensions.h"

namespace tessera {
namespace {

using nlohmann::json;

Result<Architecture> parse_architecture(const json& config) {
  static const std::vector<std::pair<std::string, Architecture>> known = {
      {"llama", Architecture::llama},
      {"qwen3", Architecture::qwen3},
      {"mixtral", Architecture::mixtral},
      {"qwen3_moe", Architecture::qwen3_moe},
  };
  if (!config.is_object()) return invalid("config.json: got {}, expected a JSON object", config.type_name());
  if (!config.contains("model_type") || !config["model_type"].is_string())
    return invalid("config.json: field 'model_type' is missing; it names the architecture, such as \"llama\"");
  std::string name = config["model_type"];
  std::vector<std::string> names;
  for (const auto& [text, architecture] : known) {
    if (text == name) return architecture;
    names.push_back(text);
  }
  return invalid("config.json: model_type '{}' is not supported; known: {}{}", name, fmt::join(names, ", "),
                 did_you_mean(name, names));
}

// transformers 5 nests rope settings in rope_parameters; earlier versions use rope_theta and rope_scaling.
RopeSpec parse_rope(const json& config, ConfigFields& fields) {
  RopeSpec rope;
  rope.theta = fields.number_or("rope_theta", 10000);
  const char* key = fields.present("rope_parameters") ? "rope_parameters" : "rope_scaling";
  if (!fields.present(key)) return rope;
  if (!config[key].is_object()) return fields.fail(key, "expected an object"), rope;
  ConfigFields scaling(config[key]);
  rope.theta = scaling.number_or("rope_theta", rope.theta);
  const json& table = config[key];
  std::string type = table.value("rope_type", table.value("type", "default"));
  if (type == "llama3") {
    rope.llama3 = RopeSpec::Llama3{
        .factor = scaling.number_or("factor", 8),
        .low_freq_factor = scaling.number_or("low_freq_factor", 1),
        .high_freq_factor = scaling.number_or("high_freq_factor", 4),
        .original_max_positions = scaling.positive_or({"original_max_position_embeddings"}, 8192),
    };
  } else if (type != "default") {
    fields.fail(key, fmt::format("rope_type '{}' is not supported; known: default, llama3", type));
  }
  if (scaling.error()) fields.fail(key, scaling.error()->message);
  return rope;
}

MoeSpec parse_moe(const json& config, Architecture architecture, int64_t layers, int64_t ffn,
                  ConfigFields& fields) {
  MoeSpec moe;
  bool mixtral = architecture == Architecture::mixtral;
  // Qwen3-MoE: published files say num_experts, those that transformers 5 writes say num_local_experts.
  bool local = mixtral || (!config.contains("num_experts") && config.contains("num_local_experts"));
  moe.experts = fields.positive({local ? "num_local_experts" : "num_experts"});
  moe.top_k = fields.positive({"num_experts_per_tok"});
  moe.ffn = mixtral ? ffn : fields.positive({"moe_intermediate_size"});
  moe.normalize_top_k = mixtral || fields.flag_or({"norm_topk_prob"}, false);
  moe.aux_loss_coefficient = fields.number_or("router_aux_loss_coef", 0.001);
  if (moe.top_k > moe.experts)
    fields.fail("num_experts_per_tok", fmt::format("{} is more than the {} experts", moe.top_k, moe.experts));
  if (mixtral) return moe;
  int64_t step = fields.positive_or({"decoder_sparse_step"}, 1);
  auto listed = config.value("mlp_only_layers", std::vector<int64_t>{});
  for (int64_t layer = 0; layer < layers; ++layer) {
    bool dense = std::count(listed.begin(), listed.end(), layer) > 0 || (layer + 1) % step != 0;
    if (dense) moe.dense_layers.push_back(layer);
  }
  return moe;
}

Result<ModelSpec> checked_spec(const json& config) {
  TESSERA_ASSIGN_OR_RETURN(Architecture architecture, parse_architecture(config));
  ConfigFields fields(config);
  ModelSpec spec;
  spec.architecture = architecture;
  read_dimensions(fields, spec);
  spec.init_range = fields.number_or("initializer_range", 0.02);
  spec.qk_norm = architecture == Architecture::qwen3 || architecture == Architecture::qwen3_moe;
  spec.rope = parse_rope(config, fields);
  if (architecture == Architecture::mixtral || architecture == Architecture::qwen3_moe)
    spec.moe = parse_moe(config, architecture, spec.layers, spec.ffn, fields);
  fields.refuse("attention_bias", fields.flag_or({"attention_bias"}, false), "biases are not supported");
  fields.refuse("mlp_bias", fields.flag_or({"mlp_bias"}, false), "biases are not supported");
  fields.refuse("hidden_act", config.value("hidden_act", "silu") != "silu", "only silu is supported");
  fields.refuse("use_sliding_window", fields.flag_or({"use_sliding_window"}, false),
                "sliding windows are not supported");
  if (spec.head_dim % 2 != 0)
    fields.fail("head_dim", fmt::format("{} is odd; rotary embedding pairs elements", spec.head_dim));
  if (fields.error()) return *fields.error();
  return spec;
}

}  // namespace

const char* to_string(Architecture architecture) {
  switch (architecture) {
    case Architecture::llama:
      return "llama";
    case Architecture::qwen3:
      return "qwen3";
    case Architecture::mixtral:
      return "mixtral";
    case Architecture::qwen3_moe:
      return "qwen3_moe";
  }
  return "unknown";
}

std::vector<float> inverse_frequencies(const RopeSpec& rope, int64_t head_dim) {
  std::vector<float> frequencies;
  for (int64_t i = 0; i < head_dim; i += 2) {
    float exponent = static_cast<float>(i) / static_cast<float>(head_dim);
    frequencies.push_back(1.0f / std::pow(static_cast<float>(rope.theta), exponent));
  }
  if (!rope.llama3) return frequencies;
  // Llama 3.1: long waves are slowed by `factor`, short ones kept, those between interpolated.
  const RopeSpec::Llama3& scaling = *rope.llama3;
  double original = static_cast<double>(scaling.original_max_positions);
  for (float& frequency : frequencies) {
    double wavelength = 2 * std::numbers::pi / frequency;
    if (wavelength < original / scaling.high_freq_factor) continue;
    if (wavelength > original / scaling.low_freq_factor) {
      frequency = static_cast<float>(frequency / scaling.factor);
      continue;
    }
    double smooth = (original / wavelength - scaling.low_freq_factor) /
                    (scaling.high_freq_factor - scaling.low_freq_factor);
    frequency = static_cast<float>((1 - smooth) * frequency / scaling.factor + smooth * frequency);
  }
  return frequencies;
}

bool ModelSpec::is_moe(int64_t layer) const {
  return moe.experts > 0 && !std::binary_search(moe.dense_layers.begin(), moe.dense_layers.end(), layer);
}

Result<ModelSpec> parse_model_spec(const json& config) {
  try {
    return checked_spec(config);
  } catch (const json::exception& error) {  // a field of a type that no check above foresaw
    return invalid("config.json: {}", error.what());
  }
}

Result<ModelSpec> load_model_spec(const std::filesystem::path& path) {
  auto file = std::filesystem::is_directory(path) ? path / "config.json" : path;
  TESSERA_ASSIGN_OR_RETURN(std::string text, read_file(file));
  json config = json::parse(text, nullptr, false);
  if (config.is_discarded()) return invalid("{}: not valid JSON", file.string());
  auto spec = parse_model_spec(config);
  if (!spec) return spec.error().within(file.parent_path().string());
  return spec;
}

json to_config_json(const ModelSpec& spec, const std::string& torch_dtype) {
  static constexpr const char* kClasses[] = {"LlamaForCausalLM", "Qwen3ForCausalLM", "MixtralForCausalLM",
                                             "Qwen3MoeForCausalLM"};
  json config = {
      {"architectures", {kClasses[static_cast<int>(spec.architecture)]}},
      {"model_type", to_string(spec.architecture)},
      {"num_hidden_layers", spec.layers},
      {"hidden_size", spec.hidden},
      {"intermediate_size", spec.ffn},
      {"num_attention_heads", spec.heads},
      {"num_key_value_heads", spec.kv_heads},
      {"head_dim", spec.head_dim},
      {"vocab_size", spec.vocab},
      {"max_position_embeddings", spec.max_positions},
      {"rms_norm_eps", spec.norm_eps},
      {"initializer_range", spec.init_range},
      {"rope_theta", spec.rope.theta},
      {"hidden_act", "silu"},
      {"attention_bias", false},
      {"tie_word_embeddings", spec.tied},
      {"torch_dtype", torch_dtype},
  };
  if (spec.bos) config["bos_token_id"] = *spec.bos;
  if (spec.eos) config["eos_token_id"] = *spec.eos;
  if (spec.rope.llama3) {
    config["rope_scaling"] = {{"rope_type", "llama3"},
                              {"factor", spec.rope.llama3->factor},
                              {"low_freq_factor", spec.rope.llama3->low_freq_factor},
                              {"high_freq_factor", spec.rope.llama3->high_freq_factor},
                              {"original_max_position_embeddings", spec.rope.llama3->original_max_positions}};
  }
  if (spec.moe.experts == 0) return config;
  config["num_experts_per_tok"] = spec.moe.top_k;
  config["router_aux_loss_coef"] = spec.moe.aux_loss_coefficient;
  if (spec.architecture == Architecture::mixtral) {
    config["num_local_experts"] = spec.moe.experts;
    return config;
  }
  config["num_experts"] = spec.moe.experts;
  config["moe_intermediate_size"] = spec.moe.ffn;
  config["norm_topk_prob"] = spec.moe.normalize_top_k;
  config["decoder_sparse_step"] = 1;
  config["mlp_only_layers"] = spec.moe.dense_layers;
  return config;
}

}  // namespace tessera
