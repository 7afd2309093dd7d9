#include "spec/model_dimensions.h"

#include <algorithm>

namespace tessera {

void read_dimensions(ConfigFields& fields, ModelSpec& spec) {
  spec.layers = fields.positive({"num_hidden_layers"});
  spec.hidden = fields.positive({"hidden_size"});
  spec.ffn = fields.positive({"intermediate_size"});
  spec.heads = fields.positive({"num_attention_heads"});
  spec.kv_heads = fields.positive_or({"num_key_value_heads"}, spec.heads);
  spec.head_dim = fields.positive_or({"head_dim"}, std::max<int64_t>(1, spec.hidden / spec.heads));
  spec.vocab = fields.positive({"vocab_size"});
  spec.max_positions = fields.positive_or({"max_position_embeddings"}, 2048);
  spec.norm_eps = fields.number_or("rms_norm_eps", 1e-6);
  spec.tied = fields.flag_or({"tie_word_embeddings"}, false);
  spec.bos = fields.token("bos_token_id");
  spec.eos = fields.token("eos_token_id");
  if (spec.heads % spec.kv_heads != 0)
    fields.fail("num_key_value_heads",
                fmt::format("{} does not divide the {} heads", spec.kv_heads, spec.heads));
}

}  // namespace tessera
