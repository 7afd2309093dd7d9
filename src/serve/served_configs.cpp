#include "serve/served_configs.h"

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

namespace tessera::serve {

using nlohmann::json;

namespace {

double scale_of_attention(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

// As Hugging Face takes it: named, or from the factor, or from a quotient (DeepSeek).
double attention_factor(ConfigFields& scaling, double factor) {
  if (scaling.present("attention_factor")) return scaling.number_or("attention_factor", 1);
  const double mscale = scaling.number_or("mscale", 0), all = scaling.number_or("mscale_all_dim", 0);
  if (mscale != 0 && all != 0) return scale_of_attention(factor, mscale) / scale_of_attention(factor, all);
  return scale_of_attention(factor, 1);
}

}  // namespace

ConfigParser served_only_parser(const json& config) {
  static const std::map<std::string, ConfigParser> parsers = {{"gpt_oss", parse_gpt_oss},
                                                              {"deepseek_v2", parse_deepseek},
                                                              {"deepseek_v3", parse_deepseek},
                                                              {"gpt2", parse_gpt2},
                                                              {"esm", parse_esm}};
  if (!config.is_object() || !config.contains("model_type") || !config["model_type"].is_string())
    return nullptr;
  const auto found = parsers.find(config["model_type"].get<std::string>());
  return found == parsers.end() ? nullptr : found->second;
}

void read_rope(const json& config, ConfigFields& fields, ServedSpec& spec) {
  spec.rope.theta = fields.number_or("rope_theta", 10000);
  const char* key = fields.present("rope_parameters") ? "rope_parameters" : "rope_scaling";
  if (!fields.present(key)) return;
  if (!config[key].is_object()) return fields.fail(key, "expected an object");
  ConfigFields scaling(config[key]);
  spec.rope.theta = scaling.number_or("rope_theta", spec.rope.theta);
  const std::string type = scaling.text_or("rope_type", scaling.text_or("type", "default"));
  if (type == "yarn") {
    YarnSpec yarn{.beta_fast = scaling.number_or("beta_fast", 32),
                  .beta_slow = scaling.number_or("beta_slow", 1)};
    yarn.original_max_positions = scaling.positive_or({"original_max_position_embeddings"}, spec.max_positions);
    yarn.factor = scaling.number_or(
        "factor", static_cast<double>(spec.max_positions) / static_cast<double>(yarn.original_max_positions));
    yarn.truncate = scaling.flag_or({"truncate"}, true);
    yarn.attention_factor = attention_factor(scaling, yarn.factor);
    spec.yarn = yarn;
  } else if (type != "default") {
    fields.fail(key,
                fmt::format("rope_type '{}' is not served with this architecture; known: default, yarn", type));
  }
  if (scaling.error()) fields.fail(key, scaling.error()->message);
}

}  // namespace tessera::serve
