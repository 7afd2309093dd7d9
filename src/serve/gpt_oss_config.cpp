#include <nlohmann/json.hpp>

#include "serve/served_configs.h"

namespace tessera::serve {

namespace {

// Layers of a window and layers without one take turns unless the file says otherwise.
std::vector<int64_t> windows_of(ConfigFields& fields, int64_t layers) {
  const int64_t window = fields.count_or({"sliding_window"}, 0);
  std::vector<std::string> types = fields.texts("layer_types");
  if (types.empty())
    for (int64_t l = 0; l < layers; ++l) types.push_back(l % 2 == 0 ? "sliding_attention" : "full_attention");
  if (std::ssize(types) < layers)
    fields.fail("layer_types", fmt::format("{} entries for {} layers", types.size(), layers));
  std::vector<int64_t> windows;
  for (const std::string& type : types) {
    if (type != "sliding_attention" && type != "full_attention")
      fields.fail("layer_types",
                  fmt::format("'{}' is not served; known: sliding_attention, full_attention", type));
    windows.push_back(type == "sliding_attention" ? window : 0);
  }
  windows.resize(static_cast<size_t>(layers));
  return windows;
}

}  // namespace

Result<ServedSpec> parse_gpt_oss(const nlohmann::json& config) {
  ConfigFields fields(config);
  ServedSpec spec;
  spec.family = Family::gpt_oss;
  read_dimensions(fields, spec);
  read_rope(config, fields, spec);
  spec.windows = windows_of(fields, spec.layers);
  spec.moe = {.experts = fields.positive({"num_local_experts", "num_experts"}),
              .top_k = fields.positive({"num_experts_per_tok", "experts_per_token"}),
              .ffn = spec.ffn,
              .normalize_top_k = true,
              .dense_layers = {}};
  spec.activation = {.kind = kernels::Activation::Kind::swiglu_clamped,
                     .alpha = static_cast<float>(fields.number_or("swiglu_alpha", 1.702)),
                     .limit = static_cast<float>(fields.number_or("swiglu_limit", 7.0))};
  fields.refuse("attention_bias", !fields.flag_or({"attention_bias"}, true), "only true is served");
  fields.refuse("hidden_act", config.value("hidden_act", "silu") != "silu", "only silu is served");
  if (spec.head_dim % 2 != 0)
    fields.fail("head_dim", fmt::format("{} is odd; rotary embedding pairs elements", spec.head_dim));
  if (spec.moe.top_k > spec.moe.experts)
    fields.fail("num_experts_per_tok",
                fmt::format("{} is more than the {} experts", spec.moe.top_k, spec.moe.experts));
  if (fields.error()) return *fields.error();
  return spec;
}

}  // namespace tessera::serve
