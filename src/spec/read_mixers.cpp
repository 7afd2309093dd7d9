#include <algorithm>
#include <nlohmann/json.hpp>

#include "spec/read_layers.h"

namespace tessera {
namespace {

using nlohmann::json;

struct Biases {
  bool qkv = false, out = false;
};

Biases read_biases(ConfigReader& r) {
  switch (r.family.attention_bias) {
    case BiasRule::none:
      return {r.fields.flag_or({"use_qkv_bias"}, false), r.type == "gpt_neo"};
    case BiasRule::qkv:
      return {true, false};
    case BiasRule::all: {
      bool on = r.fields.flag_or({"use_bias", "bias", "enable_bias"}, r.type != "falcon");
      return {on, on};
    }
    case BiasRule::by_field:
      break;
  }
  bool on = r.fields.flag_or({"attention_bias", "use_bias", "qkv_bias"}, r.family.attention_bias_default);
  return {on, r.fields.flag_or({"attention_out_bias"}, on && r.family.out_bias)};
}

int64_t read_kv_heads(ConfigReader& r, int64_t heads) {
  bool multi_query = r.is({"falcon"}) ? r.fields.flag_or({"multi_query"}, true) &&
                                            !r.fields.flag_or({"new_decoder_architecture"}, false)
                                      : r.fields.flag_or({"multi_query"}, r.type == "gpt_bigcode");
  if (multi_query) return 1;
  return r.fields.positive_or({"num_key_value_heads", "num_kv_heads", "n_kv_heads", "kv_n_heads"}, heads);
}

QkNorm read_qk_norm(ConfigReader& r) {
  bool named = r.fields.present("use_qk_norm") || r.fields.present("qk_layernorm");
  if (!named) return r.is({"glm4_moe", "cohere", "stablelm", "llama4_text"}) ? QkNorm::none : r.family.qk_norm;
  if (!r.fields.flag_or({"use_qk_norm", "qk_layernorm"}, false) || r.type == "llama4_text") return QkNorm::none;
  if (r.fields.text_or("qk_norm_type", "") == "per_layer") return QkNorm::full;
  if (r.is({"cohere", "stablelm"})) return QkNorm::each_head;
  return r.family.qk_norm == QkNorm::none ? QkNorm::per_head : r.family.qk_norm;
}

int64_t small_vectors(const Mixer& m, QkNorm norm, bool sinks) {
  int64_t vectors = sinks ? m.heads : 0;
  if (norm == QkNorm::per_head) vectors += (m.own_kv ? 2 : 1) * m.head_dim;
  if (norm == QkNorm::per_head_layer_norm) vectors += 4 * m.head_dim;
  if (norm == QkNorm::full || norm == QkNorm::each_head) vectors += (m.heads + m.kv_heads) * m.head_dim;
  return vectors;
}

Mixer read_linear_attention(ConfigReader& r) {
  Mixer m;
  m.kind = MixerKind::linear_attention;
  m.heads = r.fields.positive({"linear_num_value_heads"});
  m.kv_heads = r.fields.positive({"linear_num_key_heads"});
  m.head_dim = r.fields.positive({"linear_key_head_dim"});
  m.v_head_dim = r.fields.positive({"linear_value_head_dim"});
  m.conv_kernel = r.fields.positive_or({"linear_conv_kernel_dim"}, 4);
  m.output_gate = true;
  return m;
}

Mixer read_mla(ConfigReader& r) {
  Mixer m;
  m.kind = MixerKind::mla;
  m.heads = m.kv_heads = r.fields.positive({"num_attention_heads"});
  m.q_rank = r.fields.count_or({"q_lora_rank"}, 0);
  m.kv_rank = r.fields.positive({"kv_lora_rank"});
  m.nope_dim = r.fields.positive({"qk_nope_head_dim"});
  m.rope_dim = r.fields.positive({"qk_rope_head_dim"});
  m.head_dim = m.nope_dim + m.rope_dim;
  m.v_head_dim = r.fields.positive({"v_head_dim"});
  m.qkv_bias = m.out_bias = r.fields.flag_or({"attention_bias"}, false);
  m.index_heads = r.fields.count_or({"index_n_heads"}, 0);
  if (m.index_heads == 0) return m;
  m.index_dim = r.fields.positive({"index_head_dim"});
  m.index_top_k = r.fields.positive({"index_topk"});
  return m;
}

Mixer read_compressed(ConfigReader& r, int64_t ratio) {
  Mixer m;
  m.kind = MixerKind::compressed;
  m.heads = r.fields.positive({"num_attention_heads"});
  m.kv_heads = 1;
  m.head_dim = m.v_head_dim = r.fields.positive({"head_dim"});
  m.q_rank = r.fields.positive({"q_lora_rank"});
  m.out_rank = r.fields.positive({"o_lora_rank"});
  m.out_groups = r.fields.positive({"o_groups"});
  m.window = r.fields.positive({"sliding_window"});
  m.compress_ratio = ratio;
  m.vectors = m.heads;
  if (ratio == 0 || ratio >= 64) return m;  // only the finely compressed history is searched
  m.index_heads = r.fields.positive({"index_n_heads"});
  m.index_dim = r.fields.positive({"index_head_dim"});
  m.index_top_k = r.fields.positive({"index_topk"});
  return m;
}

// MiniMax-M3: blocks of the history chosen by a small indexer, on some layers.
void read_sparse_blocks(ConfigReader& r, std::vector<Mixer>& mixers) {
  if (!r.fields.present("sparse_attention_config")) return;
  ConfigFields sparse(r.fields["sparse_attention_config"]);
  auto where = sparse.integers("sparse_attention_freq");
  for (size_t layer = 0; layer < mixers.size(); ++layer) {
    if (layer < where.size() && where[layer] == 0) continue;
    mixers[layer].index_heads = sparse.positive({"sparse_num_index_heads"});
    mixers[layer].index_dim = sparse.positive({"sparse_index_dim"});
    mixers[layer].index_top_k =
        sparse.positive({"sparse_topk_blocks"}) * sparse.positive({"sparse_block_size"});
  }
  if (sparse.error()) r.fields.fail("sparse_attention_config", sparse.error()->message);
}

// Which layers see a window only, where layer_types does not say.
bool slides_by_type(ConfigReader& r, int64_t layer) {
  if (r.is({"gpt_oss", "gemma2"})) return layer % 2 == 0;
  if (r.is({"gemma3", "gemma3_text", "cohere2", "olmo3", "exaone4"})) {
    int64_t usual = r.is({"gemma3", "gemma3_text"}) ? 6 : 4;
    bool numeric =
        !r.fields.present("sliding_window_pattern") || r.fields["sliding_window_pattern"].is_number();
    int64_t period = numeric ? r.fields.positive_or({"sliding_window_pattern"}, usual) : usual;
    return (layer + 1) % period != 0;
  }
  if (r.fields.present("use_sliding_window") && !r.fields.flag_or({"use_sliding_window"}, false)) return false;
  if (r.is({"qwen2", "qwen2_moe", "qwen3", "qwen3_moe"}))
    return r.fields.flag_or({"use_sliding_window"}, false) &&
           layer >= r.fields.count_or({"max_window_layers"}, 0);
  return r.fields.present("sliding_window");
}

void read_windows(ConfigReader& r, std::vector<Mixer>& mixers) {
  auto types = r.texts_per_layer("layer_types");
  auto no_rope = r.integers_per_layer("no_rope_layers");
  for (int64_t layer = 0; layer < r.layers; ++layer) {
    Mixer& m = mixers[static_cast<size_t>(layer)];
    if (m.kind != MixerKind::attention) continue;
    std::string type = types.empty() ? "" : types[static_cast<size_t>(layer)];
    bool chunked = type == "chunked_attention";
    if (r.type == "llama4_text" && types.empty())
      chunked = no_rope.empty() ? (layer + 1) % 4 != 0 : no_rope[static_cast<size_t>(layer)] != 0;
    if (chunked && r.fields.present("attention_chunk_size"))
      m.window = r.fields.positive({"attention_chunk_size"}), m.chunked = true;
    bool slides = types.empty() ? slides_by_type(r, layer) : type == "sliding_attention";
    if (slides) m.window = r.fields.positive({"sliding_window"});
  }
}

// MiMo: window layers with their own head counts and sinks.
void read_hybrid_pattern(ConfigReader& r, std::vector<Mixer>& mixers) {
  auto pattern = r.integers_per_layer("hybrid_layer_pattern");
  for (size_t layer = 0; layer < pattern.size(); ++layer) {
    if (pattern[layer] == 0) continue;
    Mixer& m = mixers[layer];
    m.window = r.fields.positive({"sliding_window"});
    m.heads = r.fields.positive_or({"swa_num_attention_heads"}, m.heads);
    m.kv_heads = r.fields.positive_or({"swa_num_key_value_heads"}, m.kv_heads);
    m.head_dim = r.fields.positive_or({"swa_head_dim"}, m.head_dim);
    m.v_head_dim = r.fields.positive_or({"swa_v_head_dim"}, m.v_head_dim);
    if (r.fields.flag_or({"add_swa_attention_sink_bias"}, false)) m.vectors = m.heads;
  }
}

// Gemma 4: full layers have other heads, and their values are their keys; the last layers read earlier caches.
void read_gemma4(ConfigReader& r, std::vector<Mixer>& mixers) {
  if (!r.is({"gemma4", "gemma4_text"})) return;
  int64_t shared = r.fields.count_or({"num_kv_shared_layers"}, 0);
  for (int64_t layer = 0; layer < r.layers; ++layer) {
    Mixer& m = mixers[static_cast<size_t>(layer)];
    m.own_kv = layer < r.layers - shared;
    if (m.window == 0) {
      m.head_dim = m.v_head_dim = r.fields.positive_or({"global_head_dim"}, m.head_dim);
      m.shared_kv = r.fields.flag_or({"attention_k_eq_v"}, false);
      if (m.shared_kv) m.kv_heads = r.fields.positive_or({"num_global_key_value_heads"}, m.kv_heads);
    }
    m.vectors = small_vectors(m, QkNorm::per_head, false);
  }
}

void read_shared_indexers(ConfigReader& r, std::vector<Mixer>& mixers) {
  auto types = r.texts_per_layer("indexer_types");
  int64_t period = r.fields.positive_or({"index_topk_freq"}, 1),
          offset = r.fields.count_or({"index_skip_topk_offset"}, 2);
  for (int64_t layer = 0; layer < r.layers; ++layer) {
    bool own = types.empty() ? std::max<int64_t>(layer - offset + 1, 0) % period == 0
                             : types[static_cast<size_t>(layer)] != "shared";
    mixers[static_cast<size_t>(layer)].own_index = own;
  }
}

std::vector<int64_t> read_compress_ratios(ConfigReader& r) {
  if (r.fields.present("compress_ratios")) return r.integers_per_layer("compress_ratios");
  std::vector<int64_t> ratios;
  for (const std::string& type : r.texts_per_layer("layer_types"))
    ratios.push_back(type == "compressed_sparse_attention"    ? 4
                     : type == "heavily_compressed_attention" ? 128
                                                              : 0);
  if (ratios.empty()) r.fields.fail("compress_ratios", "it is missing");
  return ratios;
}

bool is_linear(ConfigReader& r, const std::vector<std::string>& types, int64_t layer) {
  if (!types.empty()) return types[static_cast<size_t>(layer)] == "linear_attention";
  int64_t interval = r.fields.count_or({"full_attention_interval"}, r.type == "qwen3_next" ? 4 : 0);
  return interval > 0 && (layer + 1) % interval != 0;
}

}  // namespace

Mixer read_attention(ConfigReader& r) {
  Mixer m;
  m.kind = MixerKind::attention;
  m.heads = r.fields.positive({"num_attention_heads", "n_head", "n_heads", "num_heads"});
  m.kv_heads = read_kv_heads(r, m.heads);
  if (m.heads % m.kv_heads != 0)
    r.fields.fail("num_key_value_heads", fmt::format("{} does not divide the {} heads", m.kv_heads, m.heads));
  if (r.hidden % m.heads != 0 && !r.fields.present("head_dim"))
    r.fields.fail(
        "num_attention_heads",
        fmt::format("{} does not divide hidden_size = {} and head_dim is missing", m.heads, r.hidden));
  m.head_dim =
      r.fields.positive_or({"head_dim", "attention_head_dim"}, std::max<int64_t>(1, r.hidden / m.heads));
  m.v_head_dim = r.fields.positive_or({"v_head_dim"}, m.head_dim);
  Biases biases = read_biases(r);
  m.qkv_bias = biases.qkv, m.out_bias = biases.out;
  bool usually_gated = r.is({"qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"});
  m.output_gate = r.fields.flag_or({"attn_output_gate", "attention_output_gate"}, usually_gated);
  m.vectors = small_vectors(m, read_qk_norm(r), r.family.sinks);
  return m;
}

std::vector<Mixer> read_mixers(ConfigReader& r) {
  auto count = static_cast<size_t>(r.layers);
  if (r.fields.present("o_groups") && r.fields.present("o_lora_rank")) {
    std::vector<Mixer> mixers;
    for (int64_t ratio : read_compress_ratios(r)) mixers.push_back(read_compressed(r, ratio));
    return mixers;
  }
  if (r.fields.present("kv_lora_rank")) {
    std::vector<Mixer> mixers(count, read_mla(r));
    read_shared_indexers(r, mixers);
    return mixers;
  }
  std::vector<Mixer> mixers(count, read_attention(r));
  auto types = r.texts_per_layer("layer_types");
  for (int64_t layer = 0; layer < r.layers; ++layer)
    if (is_linear(r, types, layer)) mixers[static_cast<size_t>(layer)] = read_linear_attention(r);
  read_windows(r, mixers);
  read_hybrid_pattern(r, mixers);
  read_gemma4(r, mixers);
  read_sparse_blocks(r, mixers);
  return mixers;
}

}  // namespace tessera
