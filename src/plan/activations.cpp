#include "plan/activations.h"

#include <algorithm>

namespace tessera::plan {

std::vector<KeptTensor> kept_by_block(const ModelSpec& model, const Work& work, const Layout& layout,
                                      int64_t layer) {
  RankShapes s = rank_shapes(model, work, layout);
  double w = bytes_of(work.precision);
  std::vector<KeptTensor> kept = {
      {"block input, shard", s.shard_tokens * s.hidden, w},
      {"attention norm: 1/rms", s.shard_tokens, 4},
      {"attention norm output, gathered", s.tokens * s.hidden, w},
      {"q, k, v after rope", s.tokens * (s.q + 2 * s.kv), w},
      {"attention output", s.tokens * s.q, w},
      {"attention log-sum-exp", s.tokens * s.heads, 4},
      {"x after attention, shard", s.shard_tokens * s.hidden, w},
      {"ffn norm: 1/rms", s.shard_tokens, 4},
      {"ffn norm output, gathered", s.tokens * s.hidden, w},
  };
  if (model.qk_norm) kept.push_back({"q, k before their norms", s.tokens * (s.q + s.kv), w});
  if (!model.is_moe(layer)) {
    kept.push_back({"gate and up", s.tokens * 2 * s.ffn, w});
    kept.push_back({"silu(gate) * up", s.tokens * s.ffn, w});
    return kept;
  }
  kept.push_back({"router probabilities", s.tokens * s.all_experts, 4});
  kept.push_back({"expert, weight and position per slot", s.routed_rows, 16});
  kept.push_back({"routed rows", s.routed_rows * s.hidden, w});
  kept.push_back({"experts: gate and up", s.routed_rows * 2 * s.expert_ffn, w});
  kept.push_back({"experts: silu(gate) * up", s.routed_rows * s.expert_ffn, w});
  kept.push_back({"expert output rows", s.routed_rows * s.hidden, w});
  return kept;
}

std::vector<KeptTensor> kept_by_head(const ModelSpec& model, const Work& work, const Layout& layout) {
  RankShapes s = rank_shapes(model, work, layout);
  double w = bytes_of(work.precision);
  return {
      {"last block's output, shard", s.shard_tokens * s.hidden, w},
      {"final norm output, gathered", s.tokens * s.hidden, w},
      {"logits", s.tokens * s.vocab, 4},
  };
}

double block_input_bytes(const ModelSpec& model, const Work& work, const Layout& layout) {
  RankShapes s = rank_shapes(model, work, layout);
  return s.shard_tokens * s.hidden * bytes_of(work.precision);
}

double block_workspace_bytes(const ModelSpec& model, const Work& work, const Layout& layout, int64_t layer) {
  RankShapes s = rank_shapes(model, work, layout);
  double w = bytes_of(work.precision);
  double rows = model.is_moe(layer) ? s.routed_rows : s.tokens;
  double width = model.is_moe(layer) ? s.expert_ffn : s.ffn;
  // Gradients of the gated width (out and in), of the block's output and input, one float32 partial sum.
  double ffn = rows * 3 * width * w + 2 * rows * s.hidden * w;
  double attention = s.tokens * (2 * s.q + 2 * s.kv) * w + s.tokens * s.hidden * w;
  return std::max(ffn, attention) + s.tokens * s.hidden * 4;
}

double total_bytes(const std::vector<KeptTensor>& tensors) {
  double sum = 0;
  for (const KeptTensor& tensor : tensors) sum += tensor.bytes();
  return sum;
}

}  // namespace tessera::plan
