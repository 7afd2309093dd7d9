// Models that list their blocks one by one.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "spec/read_layers.h"

namespace tessera {
namespace {

using nlohmann::json;

Mixer read_mamba2(ConfigReader& r) {
  Mixer m;
  m.kind = MixerKind::mamba2;
  m.heads = r.fields.positive({"mamba_num_heads"});
  m.v_head_dim = m.head_dim = r.fields.positive({"mamba_head_dim"});
  m.kv_heads = r.fields.positive_or({"n_groups", "mamba_n_groups"}, 8);
  m.state = r.fields.positive({"ssm_state_size", "mamba_state_dim"});
  m.conv_kernel = r.fields.positive_or({"conv_kernel"}, 4);
  m.qkv_bias = m.out_bias = r.fields.flag_or({"use_bias"}, false);
  return m;
}

// "M" or "mamba", "E" or "moe", "-" or "mlp", "*" or "attention".
std::vector<std::string> block_letters(ConfigReader& r) {
  std::vector<std::string> letters;
  for (char letter : r.fields.text_or("hybrid_override_pattern", "")) letters.emplace_back(1, letter);
  if (!letters.empty()) return letters;
  return r.texts_per_layer(r.fields.present("layers_block_type") ? "layers_block_type" : "layer_types");
}

std::vector<Layer> read_nemotron_h(ConfigReader& r) {
  auto letters = block_letters(r);
  Mixer attention = read_attention(r), mamba = read_mamba2(r);
  std::vector<Ffn> ffns = read_ffns(r);
  Ffn sparse = ffns.empty() ? Ffn{} : ffns[0];
  std::vector<Layer> blocks;
  for (const std::string& letter : letters) {
    Layer block;
    block.norms = 1;
    if (letter == "*" || letter == "attention" || letter == "full_attention") {
      block.mixer = attention;
    } else if (letter == "M" || letter == "mamba" || letter == "mamba2" || letter == "linear_attention") {
      block.mixer = mamba;
    } else if (letter == "E" || letter == "moe") {
      block.ffn = sparse;
    } else if (letter == "-" || letter == "mlp") {
      block.ffn = {.kind = FfnKind::dense,
                   .width = r.fields.positive({"intermediate_size"}),
                   .gated = is_gated(r),
                   .biases = r.fields.flag_or({"mlp_bias"}, false)};
    } else {
      r.fields.fail("hybrid_override_pattern", fmt::format("unknown block '{}'; known: M, E, -, *", letter));
    }
    blocks.push_back(block);
  }
  if (static_cast<int64_t>(blocks.size()) != r.layers)
    r.fields.fail("num_hidden_layers", fmt::format("{} but {} blocks are listed", r.layers, blocks.size()));
  return blocks;
}

// Width from its multiple of the hidden size, for a gated FFN, rounded up to 256 (DeciLM's own rule).
int64_t width_of_multiple(double multiple, int64_t hidden) {
  auto width = static_cast<int64_t>(2 * multiple * static_cast<double>(hidden) / 3);
  return (width + 255) / 256 * 256;
}

Layer read_nas_block(ConfigReader& r, const json& block) {
  ConfigFields attention(block["attention"]), ffn(block["ffn"]);
  Layer layer;
  layer.norms = 0;
  if (!attention.flag_or({"no_op"}, false)) {
    ++layer.norms;
    int64_t heads = r.fields.positive({"num_attention_heads"});
    layer.mixer = {.kind = MixerKind::attention,
                   .heads = heads,
                   .kv_heads = std::max<int64_t>(1, heads / attention.positive({"n_heads_in_group"})),
                   .head_dim = r.hidden / heads,
                   .v_head_dim = r.hidden / heads,
                   .window = attention.count_or({"window_length"}, 0)};
  }
  if (!ffn.flag_or({"no_op"}, false)) {
    ++layer.norms;
    layer.ffn = {.kind = FfnKind::dense, .width = width_of_multiple(ffn.number_or("ffn_mult", 0), r.hidden)};
  }
  bool linear =
      attention.flag_or({"replace_with_linear"}, false) || ffn.flag_or({"replace_with_linear"}, false);
  if (linear) r.fields.fail("block_configs", "a block replaced by a linear layer is not supported");
  for (const ConfigFields* part : {&attention, &ffn})
    if (part->error()) r.fields.fail("block_configs", part->error()->message);
  return layer;
}

std::vector<Layer> read_nas(ConfigReader& r) {
  const json& listed = r.fields["block_configs"];
  std::vector<Layer> blocks;
  bool sound = listed.is_array() && static_cast<int64_t>(listed.size()) == r.layers;
  if (!sound)
    return r.fields.fail("block_configs", fmt::format("expected a list of {} blocks", r.layers)), blocks;
  for (const json& block : listed) {
    if (!block.is_object() || !block.contains("attention") || !block.contains("ffn"))
      return r.fields.fail("block_configs", "a block has no 'attention' or no 'ffn'"), blocks;
    blocks.push_back(read_nas_block(r, block));
  }
  return blocks;
}

}  // namespace

std::vector<Layer> read_block_list(ConfigReader& r) {
  if (r.fields.present("block_configs")) return read_nas(r);
  bool hybrid = r.fields.present("hybrid_override_pattern") || r.fields.present("layers_block_type");
  if (hybrid && r.fields.present("mamba_num_heads")) return read_nemotron_h(r);
  return {};
}

}  // namespace tessera
