#include "plan/shapes.h"

#include "core/numbers.h"
#include "layout/extents.h"

namespace tessera::plan {
namespace {

double attention_elements(const ModelSpec& model, double tp) {
  double h = real(model.hidden), q = real(model.heads * model.head_dim),
         kv = real(model.kv_heads * model.head_dim);
  double norms = 2 * h + (model.qk_norm ? 2 * real(model.head_dim) : 0);
  return (h * q + 2 * h * kv + q * h) / tp + norms;
}

}  // namespace

RankShapes rank_shapes(const ModelSpec& model, const Work& work, const Layout& layout) {
  double tp = real(layout.tp);
  RankShapes s;
  s.tokens = real(work.micro_batch_tokens()) / real(layout.cp);
  s.shard_tokens = s.tokens / tp;
  s.hidden = real(model.hidden);
  s.q = real(model.heads * model.head_dim) / tp;
  s.kv = real(model.kv_heads * model.head_dim) / tp;
  s.heads = real(model.heads) / tp;
  s.ffn = real(model.ffn) / tp;
  s.vocab = real(padded_vocab(model.vocab, work.tp_blocks)) / tp;
  s.all_experts = real(model.moe.experts);
  s.experts = s.all_experts / real(layout.ep);
  s.expert_ffn = real(model.moe.ffn) / tp;
  s.routed_rows = s.tokens * real(model.moe.top_k);
  s.visible_tokens = (real(work.seq) + 1) / 2;
  return s;
}

WeightShapes layer_weights(const ModelSpec& model, const Work&, const Layout& layout, int64_t layer) {
  double tp = real(layout.tp), h = real(model.hidden);
  WeightShapes weights{attention_elements(model, tp), 0};
  if (!model.is_moe(layer)) {
    weights.dense += 3 * h * real(model.ffn) / tp;
    return weights;
  }
  weights.dense += real(model.moe.experts) * h;  // router
  weights.experts = 3 * h * real(model.moe.ffn) / tp * real(model.moe.experts) / real(layout.ep);
  return weights;
}

double embedding_weights(const ModelSpec& model, const Work& work, const Layout& layout) {
  return real(padded_vocab(model.vocab, work.tp_blocks)) / real(layout.tp) * real(model.hidden);
}

WeightShapes stage_weights(const ModelSpec& model, const Work& work, const Layout& layout, int64_t stage) {
  WeightShapes sum;
  LayerRange range = stage_layers(model, layout, stage);
  for (int64_t layer = range.first; layer < range.last; ++layer) {
    WeightShapes weights = layer_weights(model, work, layout, layer);
    sum.dense += weights.dense;
    sum.experts += weights.experts;
  }
  bool first = stage == 0, last = stage == layout.pp * layout.virtual_stages - 1;
  if (first) sum.dense += embedding_weights(model, work, layout);
  if (last) sum.dense += real(model.hidden);
  if (last && !(model.tied && first)) sum.dense += embedding_weights(model, work, layout);
  return sum;
}

}  // namespace tessera::plan
