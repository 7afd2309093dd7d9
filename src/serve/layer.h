// The weights of one block of a served model, on one rank. What a model does not have stays empty.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "serve/linear.h"

namespace tessera::serve {

// RMSNorm, or LayerNorm where there is a bias.
struct Norm {
  at::Tensor weight, bias;
};

// What attention over a latent vector has of its own; the layer's qkv are its queries: the parts without
// positions of all heads, then the rotated parts of all.
struct LatentLayer {
  Linear q_a;  // empty when queries come from the hidden state itself
  at::Tensor q_a_norm;
  Linear kv_a;  // the latent vector, then the rotated part that all heads share
  at::Tensor kv_a_norm;
  std::vector<kernels::PackedWeight> key_up, value_up;  // of each head: [kv_rank, nope_dim], [v_dim, kv_rank]
};

struct ServedLayer {
  Norm attention_norm, ffn_norm;
  at::Tensor q_norm, k_norm;
  Linear qkv;  // rows of q, then k, then v
  LatentLayer latent;
  at::Tensor sinks;  // float32 [heads]
  BlockLinear o;
  Linear router;                 // empty when the layer is dense
  at::Tensor router_correction;  // float32 [experts]
  FeedForward ffn;
  std::optional<FeedForward> shared;  // what every token meets beside its experts
};

// A multi-token-prediction layer (DeepSeek-V3 report, section 2.2): a block over the embedding of a token
// beside the hidden state of the token in front, which predicts the token behind. Embedding and head are the
// model's.
struct MtpLayer {
  Norm token_norm, hidden_norm;
  Linear join;  // of both, the token's half first
  ServedLayer block;
  Norm final_norm;
};

}  // namespace tessera::serve
