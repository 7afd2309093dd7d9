// How the published files store weights: quantization_config in the dialects of DeepSeek (fp8), OpenAI (mxfp4),
// NVIDIA modelopt and compressed-tensors.
#include <nlohmann/json.hpp>

#include "spec/read_layers.h"

namespace tessera {
namespace {

using nlohmann::json;

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

// The component after the last '.', without the wildcards around it: "model.layers.3.self_attn*" ->
// "self_attn".
std::string last_component(std::string name) {
  while (!name.empty() && (name.back() == '*' || name.back() == '.')) name.pop_back();
  return name.substr(name.find_last_of('.') == std::string::npos ? 0 : name.find_last_of('.') + 1);
}

std::optional<WeightFormat> format_named(const std::string& name) {
  if (contains(name, "NVFP4")) return WeightFormat::nvfp4;
  if (contains(name, "mxfp4") || contains(name, "MXFP4")) return WeightFormat::mxfp4;
  if (contains(name, "fp8") || contains(name, "FP8")) return WeightFormat::fp8;
  if (contains(name, "INT4") || contains(name, "W4A16")) return WeightFormat::int4;
  return std::nullopt;
}

std::optional<WeightFormat> format_of_group(const json& group) {
  if (!group.is_object() || !group.contains("weights") || !group["weights"].is_object()) return std::nullopt;
  const json& weights = group["weights"];
  int64_t bits = weights.value("num_bits", int64_t{16});
  if (bits == 8) return WeightFormat::fp8;
  if (bits != 4) return std::nullopt;
  return weights.value("type", "int") == "float" ? WeightFormat::nvfp4 : WeightFormat::int4;
}

// Formats by kind of module; a name that is neither attention nor expert is an FFN or a shared expert.
struct Formats {
  Blueprint& model;
  void set_all(WeightFormat format) {
    model.attention_format = model.ffn_format = model.expert_format = format;
  }
  WeightFormat& of(const std::string& module) {
    if (contains(module, "attn") || contains(module, "mixer.in_proj") || contains(module, "mixer.out_proj"))
      return model.attention_format;
    bool shared = contains(module, "shared_expert");
    return contains(module, "expert") && !shared ? model.expert_format : model.ffn_format;
  }
};

void apply_exclusions(const json& list, Formats& formats) {
  for (const json& entry : list) {
    if (!entry.is_string()) continue;
    std::string name = entry.get<std::string>(), last = last_component(name);
    if (contains(last, "attn") || last == "mixer") formats.model.attention_format = WeightFormat::bf16;
    if (contains(last, "shared_expert") && last != "shared_expert_gate")
      formats.model.ffn_format = WeightFormat::bf16;
  }
}

void apply_quantized_layers(const json& modules, Formats& formats) {
  for (const auto& [name, how] : modules.items()) {
    bool first_layers = contains(name, "layers.0.") && !contains(name, "expert") && !contains(name, "attn");
    if (!how.is_object() || first_layers) continue;
    if (auto format = format_named(how.value("quant_algo", ""))) formats.of(name) = *format;
  }
}

void read_cache_format(const json& config, Blueprint& model) {
  const json& algo = config.value("kv_cache_quant_algo", json());
  const json& scheme = config.value("kv_cache_scheme", json());
  if (algo.is_string() && contains(algo.get<std::string>(), "FP8")) model.kv_bytes_per_element = 1;
  if (scheme.is_string() && contains(scheme.get<std::string>(), "FP8")) model.kv_bytes_per_element = 1;
  if (scheme.is_object() && scheme.value("num_bits", 16) == 8) model.kv_bytes_per_element = 1;
}

}  // namespace

void read_formats(ConfigFields& fields, Blueprint& model) {
  Formats formats{model};
  if (fields.text_or("torch_dtype", fields.text_or("dtype", "")) == "float32")
    formats.set_all(WeightFormat::float32);
  if (!fields.present("quantization_config")) return;
  const json& config = fields["quantization_config"];
  if (!config.is_object()) return fields.fail("quantization_config", "expected an object");
  std::string method = config.value("quant_method", "");
  auto format = format_named(method);
  if (auto algo = config.value("quant_algo", json()); algo.is_string())
    if (auto named = format_named(algo.get<std::string>())) format = named;
  if (!format && config.contains("config_groups"))
    for (const auto& [name, group] : config["config_groups"].items())
      if (!format) format = format_of_group(group);
  if (method == "mxfp4") {
    model.expert_format = WeightFormat::mxfp4;  // Hugging Face converts experts only
  } else if (format) {
    formats.set_all(*format);
  }
  for (const char* key : {"ignore", "exclude_modules", "modules_to_not_convert"})
    if (config.contains(key) && config[key].is_array()) apply_exclusions(config[key], formats);
  if (config.contains("quantized_layers")) apply_quantized_layers(config["quantized_layers"], formats);
  if (fields.text_or("expert_dtype", "") == "fp4") model.expert_format = WeightFormat::mxfp4;
  read_cache_format(config, model);
}

}  // namespace tessera
