#include <algorithm>
#include <nlohmann/json.hpp>

#include "spec/read_layers.h"

namespace tessera {
namespace {

bool has_biases(ConfigReader& r) {
  bool usual = r.family.ffn_bias;
  if (r.type == "falcon") return r.fields.flag_or({"bias"}, false);
  return r.fields.flag_or({"mlp_bias", "use_mlp_bias", "use_bias", "enable_bias"}, usual);
}

int64_t dense_width(ConfigReader& r) {
  bool four = r.is({"gpt2", "gpt_bigcode", "gpt_neo", "gptj", "codegen", "bloom", "falcon"});
  if (r.type == "mpt") return r.hidden * r.fields.positive_or({"expansion_ratio"}, 4);
  auto names = {"dense_intermediate_size", "intermediate_size_mlp", "intermediate_size", "ffn_dim", "n_inner",
                "ffn_hidden_size"};
  return four ? r.fields.positive_or(names, 4 * r.hidden) : r.fields.positive(names);
}

int64_t expert_count(ConfigReader& r) {
  return r.fields.count_or({"num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"}, 0);
}

int64_t shared_width(ConfigReader& r, int64_t expert_width) {
  ConfigFields& f = r.fields;
  if (r.type == "llama4_text") return expert_width;
  if (r.is({"gemma4", "gemma4_text"}))
    return f.positive({"intermediate_size"});  // a dense FFN beside the experts
  int64_t named = f.count_or(
      {"shared_expert_intermediate_size", "moe_shared_expert_intermediate_size", "shared_intermediate_size"},
      0);
  if (named > 0) return named;
  return expert_width *
         f.count_or({"n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts"},
                    0);
}

Ffn read_moe(ConfigReader& r, int64_t experts, bool gated) {
  ConfigFields& f = r.fields;
  Ffn ffn;
  ffn.kind = FfnKind::moe;
  ffn.gated = ffn.shared_gated = gated;
  ffn.biases = has_biases(r);
  ffn.experts = experts;
  ffn.top_k = f.positive({"num_experts_per_tok", "experts_per_token", "num_experts_per_token", "top_k_experts",
                          "moe_k", "moe_top_k", "moe_topk"});
  ffn.expert_width =
      f.positive({"moe_intermediate_size", "expert_intermediate_size", "intermediate_size", "ffn_hidden_size"});
  ffn.expert_hidden = f.count_or({"moe_latent_size"}, 0);
  ffn.shared_width = shared_width(r, ffn.expert_width);
  ffn.shared_gate = r.family.shared_gate && ffn.shared_width > 0;
  ffn.router_bias = r.type == "gpt_oss";
  if (r.is({"gemma4", "gemma4_text"}))
    ffn.router_vectors = r.hidden + experts;  // input scale, scale per expert
  if (ffn.top_k > experts)
    f.fail("num_experts_per_tok", fmt::format("{} is more than the {} experts", ffn.top_k, experts));
  return ffn;
}

// Which layers have experts, by the many conventions for saying so.
std::vector<bool> moe_layers(ConfigReader& r) {
  ConfigFields& f = r.fields;
  std::vector<bool> moe(static_cast<size_t>(r.layers), true);
  auto types = r.texts_per_layer("mlp_layer_types");
  bool listed_freq = f.present("moe_layer_freq") && f["moe_layer_freq"].is_array();
  auto freq = listed_freq ? r.integers_per_layer("moe_layer_freq") : std::vector<int64_t>{};
  int64_t every = listed_freq ? 1
                              : f.positive_or({"moe_layer_freq", "moe_layer_interval", "decoder_sparse_step",
                                               "interleave_moe_layer_step"},
                                              1);
  bool counts_from_one = f.present("decoder_sparse_step") || f.present("interleave_moe_layer_step") ||
                         f.present("moe_layer_interval");
  int64_t first = f.count_or({"first_k_dense_replace", "num_dense_layers", "moe_layer_start_index"}, 0);
  int64_t last = f.count_or({"moe_layer_end_index"}, r.layers - 1);
  auto dense = f.integers("mlp_only_layers"), chosen = f.integers("moe_layers");
  for (int64_t i = 0; i < r.layers; ++i) {
    auto at = static_cast<size_t>(i);
    bool here = i >= first && i <= last && (counts_from_one ? i + 1 : i) % every == 0;
    if (!freq.empty()) here = freq[at] != 0;
    if (!chosen.empty()) here = std::count(chosen.begin(), chosen.end(), i) > 0;
    if (!types.empty()) here = types[at] != "dense";
    moe[at] = here && std::count(dense.begin(), dense.end(), i) == 0;
  }
  return moe;
}

}  // namespace

bool is_gated(ConfigReader& r) {
  if (r.family.known) return r.family.gated;
  for (const char* name : {"hidden_act", "hidden_activation", "activation_function", "mlp_hidden_act"}) {
    std::string act = r.fields.text_or(name, "");
    if (act.empty()) continue;
    return act.find("silu") != std::string::npos || act.find("glu") != std::string::npos || act == "swish";
  }
  return true;
}

std::vector<Ffn> read_ffns(ConfigReader& r) {
  bool gated = is_gated(r);
  int64_t experts = expert_count(r);
  if (r.is({"gemma4", "gemma4_text"}) && !r.fields.flag_or({"enable_moe_block"}, false)) experts = 0;
  auto moe = experts > 0 ? moe_layers(r) : std::vector<bool>(static_cast<size_t>(r.layers), false);
  Ffn sparse = experts > 0 ? read_moe(r, experts, gated) : Ffn{};
  Ffn dense;
  if (std::count(moe.begin(), moe.end(), false) > 0)
    dense = {.kind = FfnKind::dense, .width = dense_width(r), .gated = gated, .biases = has_biases(r)};
  std::vector<Ffn> ffns;
  for (bool here : moe) ffns.push_back(here ? sparse : dense);
  return ffns;
}

}  // namespace tessera
