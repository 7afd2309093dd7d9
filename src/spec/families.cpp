#include "spec/families.h"

#include <map>

namespace tessera {
namespace {

Family plain() {
  return {.known = true};
}
Family with_qk_norm(QkNorm kind) {
  return {.known = true, .qk_norm = kind};
}
Family with_qkv_bias() {
  return {.known = true, .attention_bias = BiasRule::qkv, .out_bias = false};
}
Family gemma(int norms, QkNorm qk_norm) {
  return {.known = true, .norms = norms, .qk_norm = qk_norm, .tied = true};
}
// LayerNorm, two matrices in the FFN, biases everywhere.
Family gpt(int norms, bool tied, int position_offset) {
  return {.known = true,
          .gated = false,
          .norm = NormKind::layer_norm,
          .norms = norms,
          .attention_bias = BiasRule::all,
          .ffn_bias = true,
          .tied = tied,
          .position_offset = position_offset};
}
Family encoder(int position_offset) {
  Family family = gpt(2, true, position_offset);
  family.encoder = true;
  return family;
}
Family parallel_no_bias(bool gated, bool tied) {
  return {.known = true,
          .gated = gated,
          .norm = NormKind::layer_norm_no_bias,
          .norms = 1,
          .attention_bias = BiasRule::none,
          .tied = tied};
}

std::map<std::string, Family> gpt_families() {
  std::map<std::string, Family> table = {
      {"gpt2", gpt(2, true, 0)},
      {"gpt_bigcode", gpt(2, true, 0)},
      {"gpt_neo", gpt(2, true, 0)},
      {"gptj", gpt(1, false, -1)},
      {"codegen", gpt(1, false, -1)},
      {"gpt_neox", gpt(2, false, -1)},
      {"opt", gpt(2, true, 2)},
      {"bloom", gpt(2, true, -1)},
      {"phi", gpt(1, false, -1)},
      {"starcoder2", gpt(2, true, -1)},
      {"falcon", gpt(2, true, -1)},
      {"mpt", gpt(2, true, -1)},
      {"persimmon", gpt(2, false, -1)},
      {"nemotron", gpt(2, false, -1)},
      {"phimoe", gpt(2, false, -1)},
      {"stablelm", gpt(2, false, -1)},
      {"bert", encoder(0)},
      {"roberta", encoder(0)},
      {"xlm-roberta", encoder(0)},
      {"camembert", encoder(0)},
      {"esm", encoder(0)},
      {"palm", parallel_no_bias(true, true)},
      {"cohere", parallel_no_bias(true, true)},
      {"cohere2", parallel_no_bias(true, true)},
  };
  for (const char* name : {"gptj", "codegen"}) table[name].attention_bias = BiasRule::none;
  table["gpt_neo"].attention_bias = BiasRule::none;  // q, k, v have none; the output has one, see parse_mixer
  for (const char* name : {"gpt_neox", "nemotron", "phimoe"}) table[name].attention_bias = BiasRule::by_field;
  table["gpt_neox"].attention_bias_default = true;
  table["bloom"].outer_norms = 2;
  table["mpt"].norm = NormKind::layer_norm_no_bias;
  for (const char* name : {"mpt", "nemotron", "phimoe", "stablelm"}) table[name].ffn_bias = false;
  table["mpt"].attention_bias = BiasRule::none;
  table["persimmon"].qk_norm = QkNorm::per_head_layer_norm;
  for (const char* name : {"phimoe", "stablelm"}) table[name].gated = true;
  table["stablelm"].attention_bias = BiasRule::none;  // or by use_qkv_bias, see parse_mixer
  return table;
}

std::map<std::string, Family> llama_families() {
  std::map<std::string, Family> table;
  for (const char* name :
       {"llama",        "mistral",     "mixtral",          "ministral",  "mistral3",      "smollm3",
        "granite",      "granitemoe",  "granitemoeshared", "phi3",       "seed_oss",      "exaone",
        "arcee",        "ernie4_5",    "ernie4_5_moe",     "deepseek",   "deepseek_v2",   "deepseek_v3",
        "deepseek_v32", "deepseek_v4", "deepseek_ref",     "kimi_k2",    "kimi_k25",      "glm_moe_dsa",
        "llama4_text",  "llama4",      "nemotron-nas",     "nemotron_h", "mimo_v2_flash", "helium",
        "internlm2",    "baichuan",    "glm4_moe_lite",    "hunyuan",    "gpt-moe",       "apertus",
        "lfm2"})
    table[name] = plain();
  for (const char* name : {"qwen2", "qwen2_moe", "qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text"})
    table[name] = with_qkv_bias();
  table["qwen2_moe"].shared_gate = true;
  for (const char* name :
       {"qwen3", "qwen3_moe", "qwen3_vl", "qwen3_vl_text", "qwen3_vl_moe", "qwen3_vl_moe_text", "qwen3_next",
        "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text", "minimax_m3", "minimax_m3_vl",
        "minimax_m3_vl_text", "exaone4", "hunyuan_v1_dense", "hunyuan_v1_moe"})
    table[name] = with_qk_norm(QkNorm::per_head);
  for (const char* name : {"qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"})
    table[name].shared_gate = true;
  for (const char* name : {"minimax_m2", "olmo2", "olmo3", "olmoe"}) table[name] = with_qk_norm(QkNorm::full);
  table["olmo"] = {.known = true, .norm = NormKind::none, .outer_norms = 0};
  table["gemma"] = gemma(2, QkNorm::none);
  table["gemma2"] = gemma(4, QkNorm::none);
  for (const char* name : {"gemma3", "gemma3_text", "gemma4", "gemma4_text"})
    table[name] = gemma(4, QkNorm::per_head);
  table["gpt_oss"] = {.known = true, .attention_bias_default = true, .ffn_bias = true, .sinks = true};
  for (const char* name : {"glm", "glm4", "glm4_moe"}) table[name] = {.known = true, .out_bias = false};
  table["glm4"].norms = 4;
  table["nemotron_h"].gated = false;
  table["nemotron_h"].norms = 1;
  table["arcee"].gated = table["gpt-moe"].gated = false;
  table["dbrx"] = {.known = true, .norm = NormKind::layer_norm_no_bias, .attention_bias = BiasRule::none};
  return table;
}

const std::map<std::string, Family>& families() {
  static const std::map<std::string, Family> table = [] {
    auto all = gpt_families();
    for (auto& [name, family] : llama_families()) all.emplace(name, family);
    return all;
  }();
  return table;
}

}  // namespace

Family family_of(const std::string& model_type) {
  auto found = families().find(model_type);
  return found == families().end() ? Family{} : found->second;
}

std::string refusal_of(const std::string& model_type) {
  static const std::map<std::string, const char*> refused = {
      {"mamba", "Mamba-1 blocks"},
      {"falcon_mamba", "Mamba-1 blocks"},
      {"jamba", "Mamba-1 blocks"},
      {"mamba2", "a Mamba-2 model without attention fields"},
      {"rwkv", "RWKV recurrence"},
      {"recurrent_gemma", "an RG-LRU recurrence"},
      {"t5", "an encoder and a decoder"},
      {"mt5", "an encoder and a decoder"},
      {"umt5", "an encoder and a decoder"},
      {"bart", "an encoder and a decoder"},
      {"whisper", "audio"},
      {"clip", "two towers"},
      {"vit", "images"},
      {"xlnet", "permutation attention"},
      {"reformer", "hashed attention"},
      {"gemma3n_text", "AltUp layers"},
      {"gemma3n", "AltUp layers"},
      {"zamba", "shared blocks"},
      {"zamba2", "shared blocks"},
      {"xlstm", "xLSTM recurrence"},
      {"minimax", "lightning attention"},
      {"deberta-v2", "disentangled attention"},
      {"apertus", "xIELU and its own norms"},
      {"bamba", "blocks of both kinds"},
      {"falcon_h1", "blocks of both kinds"},
      {"granitemoehybrid", "blocks of both kinds"},
      {"longcat_flash", "two attentions per block and empty experts"},
      {"jetmoe", "experts in attention"},
      {"kimi_linear", "KDA layers"},
      {"bailing_hybrid", "lightning attention"},
      {"doge", "product-key experts"},
      {"modernbert", "fused projections of its own"},
      {"modernbert-decoder", "fused projections of its own"},
      {"electra", "embeddings narrower than the hidden size"},
      {"albert", "shared layers"},
  };
  auto found = refused.find(model_type);
  return found == refused.end() ? "" : found->second;
}

}  // namespace tessera
