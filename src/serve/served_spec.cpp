#include "serve/served_spec.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "core/file.h"
#include "serve/gguf_model.h"
#include "serve/served_configs.h"

namespace tessera::serve {

using nlohmann::json;

namespace {

// Frequencies of YaRN, in float32 as Hugging Face computes them.
std::vector<float> yarn_frequencies(const YarnSpec& yarn, double theta, int64_t width) {
  auto border = [&](double rotations) {
    const auto positions = static_cast<double>(yarn.original_max_positions);
    return static_cast<double>(width) * std::log(positions / (rotations * 2 * std::numbers::pi)) /
           (2 * std::log(theta));
  };
  double low = border(yarn.beta_fast), high = border(yarn.beta_slow);
  if (yarn.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(width - 1));
  if (low == high) high += 0.001;
  std::vector<float> frequencies = inverse_frequencies({.theta = theta, .llama3 = {}}, width);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const auto ramp = static_cast<float>(std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0));
    const float slow = frequencies[i] / static_cast<float>(yarn.factor);
    frequencies[i] = slow * ramp + frequencies[i] * (1 - ramp);
  }
  return frequencies;
}

}  // namespace

kernels::KvShape ServedSpec::kv_shape(kernels::KvType type, int64_t block_tokens, int64_t tp) const {
  if (latent)  // the same on every rank
    return {.type = type,
            .block_tokens = block_tokens,
            .heads = 1,
            .head_dim = latent->kv_rank + latent->rope_dim,
            .latent = latent->kv_rank};
  return {.type = type, .block_tokens = block_tokens, .heads = kv_heads / tp, .head_dim = head_dim};
}

kernels::RopeTable ServedSpec::rope_table(std::span<const float> divisors) const {
  const int64_t width = latent ? latent->rope_dim : head_dim;
  std::vector<float> frequencies =
      yarn ? yarn_frequencies(*yarn, rope.theta, width) : inverse_frequencies(rope, width);
  for (size_t i = 0; i < divisors.size(); ++i) frequencies[i] /= divisors[i];
  kernels::RopeTable table = kernels::rope_table(frequencies, max_positions);
  if (yarn && yarn->attention_factor != 1) {
    table.cos.mul_(yarn->attention_factor);
    table.sin.mul_(yarn->attention_factor);
  }
  return table;
}

Result<ServedSpec> parse_served_spec(const json& config) {
  try {
    if (const ConfigParser parser = served_only_parser(config)) return parser(config);
  } catch (const json::exception& error) {
    return invalid("config.json: {}", error.what());
  }
  TESSERA_ASSIGN_OR_RETURN(ModelSpec trained, parse_model_spec(config));
  return ServedSpec(trained);
}

Result<ServedSpec> load_served_spec(const std::filesystem::path& model) {
  if (checkpoint::GgufFile::is_at(model)) {
    TESSERA_ASSIGN_OR_RETURN(auto file, checkpoint::GgufFile::open(model));
    TESSERA_ASSIGN_OR_RETURN(ModelSpec spec, spec_of_gguf(file));
    return ServedSpec(spec);
  }
  if (!std::filesystem::exists(model))
    return make_error(ErrorCode::not_found,
                      "no model at {}: expected a Hugging Face directory (config.json, safetensors, tokenizer) "
                      "or a GGUF file",
                      model.string());
  const auto file = std::filesystem::is_directory(model) ? model / "config.json" : model;
  TESSERA_ASSIGN_OR_RETURN(std::string text, read_file(file));
  const json config = json::parse(text, nullptr, false);
  if (config.is_discarded()) return invalid("{}: not valid JSON", file.string());
  auto spec = parse_served_spec(config);
  if (!spec) return spec.error().within(file.parent_path().string());
  return spec;
}

}  // namespace tessera::serve
