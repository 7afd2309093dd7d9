// DeepSeek-V2 and V3: attention over a latent vector, experts chosen by groups, shared experts.
#include <cmath>
#include <nlohmann/json.hpp>

#include "serve/served_configs.h"

namespace tessera::serve {

using nlohmann::json;

namespace {

// YaRN's scaling of scores: a square, because queries and keys are meant to be scaled each (DeepSeek-V2).
double score_factor(const json& config) {
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    if (!config.contains(key) || !config[key].is_object()) continue;
    ConfigFields scaling(config[key]);
    const double all = scaling.number_or("mscale_all_dim", 0), factor = scaling.number_or("factor", 1);
    const std::string type = scaling.text_or("rope_type", scaling.text_or("type", "default"));
    if (type == "default" || all == 0 || factor <= 1) return 1;
    const double mscale = 0.1 * all * std::log(factor) + 1;
    return mscale * mscale;
  }
  return 1;
}

kernels::GroupRouting routing_of(ConfigFields& fields, bool v3) {
  kernels::GroupRouting routing{.sigmoid = v3, .best_two = v3};
  routing.scale = fields.number_or("routed_scaling_factor", v3 ? 2.5 : 1);
  routing.normalize = fields.flag_or({"norm_topk_prob"}, v3);
  const std::string method = fields.text_or("topk_method", v3 ? "noaux_tc" : "greedy");
  if (method != "greedy" && method != (v3 ? "noaux_tc" : "group_limited_greedy"))
    fields.fail("topk_method", fmt::format("'{}' is not served with this architecture", method));
  if (!v3) fields.refuse("norm_topk_prob", routing.normalize, "only false is served with DeepSeek-V2");
  if (method == "greedy" && !v3) return routing;
  routing.groups = fields.positive_or({"n_group"}, 1);
  routing.chosen_groups = fields.positive_or({"topk_group"}, 1);
  return routing;
}

void read_experts(ConfigFields& fields, bool v3, ServedSpec& spec) {
  spec.moe.experts = fields.positive({"n_routed_experts", "num_local_experts"});
  spec.moe.top_k = fields.positive({"num_experts_per_tok"});
  spec.moe.ffn = fields.positive({"moe_intermediate_size"});
  spec.shared_ffn = spec.moe.ffn * fields.count_or({"n_shared_experts"}, 1);
  spec.routing = routing_of(fields, v3);
  const int64_t dense = fields.count_or({"first_k_dense_replace"}, v3 ? 3 : 0);
  for (int64_t l = 0; l < std::min(dense, spec.layers); ++l) spec.moe.dense_layers.push_back(l);
  const kernels::GroupRouting& routing = *spec.routing;
  if (spec.moe.experts % routing.groups != 0)
    return fields.fail("n_group",
                       fmt::format("{} does not divide {} experts", routing.groups, spec.moe.experts));
  const int64_t most = spec.moe.experts / routing.groups * std::min(routing.groups, routing.chosen_groups);
  if (spec.moe.top_k > most)
    fields.fail("num_experts_per_tok",
                fmt::format("{} is more than the {} experts of the chosen groups", spec.moe.top_k, most));
  fields.refuse("moe_layer_freq", fields.positive_or({"moe_layer_freq"}, 1) != 1, "only 1 is served");
}

}  // namespace

Result<ServedSpec> parse_deepseek(const json& config) {
  ConfigFields fields(config);
  const bool v3 = config["model_type"] == "deepseek_v3";
  ServedSpec spec;
  spec.family = Family::deepseek;
  read_dimensions(fields, spec);
  read_rope(config, fields, spec);
  spec.kv_heads = spec.heads;
  spec.latent = LatentSpec{.q_rank = fields.count_or({"q_lora_rank"}, 0),
                           .kv_rank = fields.positive({"kv_lora_rank"}),
                           .nope_dim = fields.positive({"qk_nope_head_dim"}),
                           .rope_dim = fields.positive({"qk_rope_head_dim"}),
                           .v_dim = fields.positive({"v_head_dim"}),
                           .interleaved = !v3 || fields.flag_or({"rope_interleave"}, true),
                           .score_factor = score_factor(config)};
  spec.head_dim = spec.latent->nope_dim + spec.latent->rope_dim;
  spec.mtp_layers = fields.count_or({"num_nextn_predict_layers"}, 0);
  read_experts(fields, v3, spec);
  fields.refuse("attention_bias", fields.flag_or({"attention_bias"}, false), "biases are not served");
  fields.refuse("hidden_act", config.value("hidden_act", "silu") != "silu", "only silu is served");
  if (spec.latent->rope_dim % 2 != 0)
    fields.fail("qk_rope_head_dim",
                fmt::format("{} is odd; rotary embedding pairs elements", spec.latent->rope_dim));
  if (fields.error()) return *fields.error();
  return spec;
}

}  // namespace tessera::serve
