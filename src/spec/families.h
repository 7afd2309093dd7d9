// What a model_type implies without saying so in its config.json: norms, biases, gates, positions. A type that
// is not listed is read by its fields alone: gated when its activation is silu, RMSNorm when it has
// rms_norm_eps.
#pragma once

#include <string>

namespace tessera {

enum class NormKind { rms, layer_norm, layer_norm_no_bias, none };
enum class BiasRule { none, by_field, qkv, all };  // by_field: attention_bias on q, k, v and o
enum class QkNorm {
  none,
  per_head,
  per_head_layer_norm,
  each_head,
  full
};  // each_head: own weights for each head

struct Family {
  bool known = false;
  bool gated = true;
  NormKind norm = NormKind::rms;
  int norms = 2;  // per layer
  BiasRule attention_bias = BiasRule::by_field;
  bool attention_bias_default = false;
  bool out_bias = true;  // attention_bias by field reaches the output projection
  bool ffn_bias = false;
  QkNorm qk_norm = QkNorm::none;
  bool tied = false;         // when the file does not say
  int position_offset = -1;  // -1: no learned positions; else rows beyond max_position_embeddings
  int outer_norms = 1;
  bool encoder = false;
  bool sinks = false;        // a learned logit per head in the softmax
  bool shared_gate = false;  // sigmoid gate on the shared expert
};

// `known` is false for a type that is not listed.
Family family_of(const std::string& model_type);
// Why this type cannot be described by a Blueprint, or "" .
std::string refusal_of(const std::string& model_type);

}  // namespace tessera
