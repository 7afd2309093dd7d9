// Sizes of what one rank holds and computes: the only place where a layout divides a model. Memory and time
// both read them, so they cannot disagree.
//
// All are counts of elements or rows, as double (a trillion squared does not fit an int64_t).
#pragma once

#include "layout/layout.h"

namespace tessera::plan {

// One rank of one replica, one micro-batch.
struct RankShapes {
  double tokens = 0;        // of the micro-batch after context parallelism: rows of every product
  double shard_tokens = 0;  // tokens / tp: rows of norms and residuals under sequence parallelism
  double hidden = 0;        // whole
  double q = 0, kv = 0;     // heads * head_dim / tp
  double heads = 0;         // / tp
  double ffn = 0;           // / tp
  double vocab = 0;         // padded, / tp
  double experts = 0;       // that this rank holds: experts / ep
  double all_experts = 0;
  double expert_ffn = 0;      // / tp
  double routed_rows = 0;     // rows that this rank's experts compute: tokens * top_k when balanced
  double visible_tokens = 0;  // that a token attends to, on average
};
RankShapes rank_shapes(const ModelSpec& model, const Work& work, const Layout& layout);

// Elements of the weights of one part, on one rank after tensor and expert parallelism, before fsdp.
struct WeightShapes {
  double dense = 0;    // sharded over the fsdp, replicated over the dp ranks
  double experts = 0;  // sharded over fsdp / ep, replicated over the rest
};
WeightShapes layer_weights(const ModelSpec& model, const Work& work, const Layout& layout, int64_t layer);
double embedding_weights(const ModelSpec& model, const Work& work, const Layout& layout);  // also of the head
WeightShapes stage_weights(const ModelSpec& model, const Work& work, const Layout& layout, int64_t stage);

// Ranks over which the experts of one rank are sharded as fsdp does, and over which they are replicated.
inline int64_t expert_fsdp(const Layout& layout) {
  return layout.ep < layout.fsdp ? layout.fsdp / layout.ep : 1;
}
inline int64_t expert_dp(const Layout& layout) {
  return layout.expert_replicas() / expert_fsdp(layout);
}

inline double bytes_of(Precision precision) {
  return precision == Precision::bf16 ? 2 : 4;
}

}  // namespace tessera::plan
