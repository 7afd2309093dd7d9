// Models with LayerNorm, biases and networks without a gate: GPT-2 and the encoder ESM-2.
#include <nlohmann/json.hpp>

#include "serve/served_configs.h"

namespace tessera::serve {

using nlohmann::json;

Result<ServedSpec> parse_gpt2(const json& config) {
  ConfigFields fields(config);
  ServedSpec spec;
  spec.family = Family::gpt2;
  spec.layers = fields.positive({"n_layer", "num_hidden_layers"});
  spec.hidden = fields.positive({"n_embd", "hidden_size"});
  spec.heads = spec.kv_heads = fields.positive({"n_head", "num_attention_heads"});
  spec.ffn = fields.positive_or({"n_inner"}, 4 * spec.hidden);
  spec.head_dim = std::max<int64_t>(1, spec.hidden / spec.heads);
  spec.vocab = fields.positive({"vocab_size"});
  spec.max_positions = fields.positive_or({"n_positions", "max_position_embeddings"}, 1024);
  spec.norm_eps = fields.number_or("layer_norm_epsilon", 1e-5);
  spec.tied = fields.flag_or({"tie_word_embeddings"}, true);
  spec.bos = fields.token("bos_token_id");
  spec.eos = fields.token("eos_token_id");
  spec.rotary = false;
  const std::string activation = fields.text_or("activation_function", "gelu_new");
  spec.activation.kind =
      activation == "gelu" ? kernels::Activation::Kind::gelu : kernels::Activation::Kind::gelu_tanh;
  if (activation != "gelu" && activation != "gelu_new" && activation != "gelu_pytorch_tanh")
    fields.fail("activation_function",
                fmt::format("'{}' is not served; known: gelu_new, gelu_pytorch_tanh, gelu", activation));
  fields.refuse("scale_attn_weights", !fields.flag_or({"scale_attn_weights"}, true), "only true is served");
  fields.refuse("scale_attn_by_inverse_layer_idx", fields.flag_or({"scale_attn_by_inverse_layer_idx"}, false),
                "only false is served");
  fields.refuse("add_cross_attention", fields.flag_or({"add_cross_attention"}, false), "only false is served");
  if (spec.hidden % spec.heads != 0)
    fields.fail("n_head", fmt::format("{} does not divide the width of {}", spec.heads, spec.hidden));
  if (fields.error()) return *fields.error();
  return spec;
}

Result<ServedSpec> parse_esm(const json& config) {
  ConfigFields fields(config);
  ServedSpec spec;
  spec.family = Family::esm;
  read_dimensions(fields, spec);
  spec.encoder = true;
  spec.kv_heads = spec.heads;
  spec.head_dim = std::max<int64_t>(1, spec.hidden / spec.heads);
  spec.norm_eps = fields.number_or("layer_norm_eps", 1e-12);
  spec.rope.theta = fields.number_or("rope_theta", 10000);
  spec.activation.kind = kernels::Activation::Kind::gelu;
  if (fields.flag_or({"token_dropout"}, false)) spec.mask_token = fields.count_or({"mask_token_id"}, -1);
  const std::string positions = fields.text_or("position_embedding_type", "absolute");
  fields.refuse("position_embedding_type", positions != "rotary", "only rotary (ESM-2) is served");
  fields.refuse("emb_layer_norm_before", fields.flag_or({"emb_layer_norm_before"}, false),
                "only false is served");
  fields.refuse("is_folding_model", fields.flag_or({"is_folding_model"}, false), "only false is served");
  if (spec.hidden % spec.heads != 0)
    fields.fail("num_attention_heads",
                fmt::format("{} does not divide the width of {}", spec.heads, spec.hidden));
  if (fields.error()) return *fields.error();
  return spec;
}

}  // namespace tessera::serve
