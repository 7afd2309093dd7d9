#include "plan/activations.h"

#include <algorithm>

namespace tessera::plan {
namespace {

// Partial sums alive at once, beside the result, while a tree over n leaves is produced left to right.
double tree_depth(int64_t n) {
  if (n <= 1) return 0;
  int64_t left = 1;
  while (left * 2 < n) left *= 2;
  return std::max(tree_depth(left), 1 + tree_depth(n - left));
}

// Sizes in bytes that several pieces share. w: working precision; f: float32.
struct Sizes {
  Sizes(const ModelSpec& model, const Work& work, const Layout& layout)
      : shapes(rank_shapes(model, work, layout)), w(bytes_of(work.precision)) {
    bool exact = work.numerics == Numerics::exact;
    tp = static_cast<double>(layout.tp);
    chunks = exact ? work.seq_chunks : layout.tp;
    blocks_depth = exact ? tree_depth(work.tp_blocks / layout.tp) : 0;
    chunks_depth = tree_depth(chunks);
    expert_depth = tree_depth(chunks * layout.ep);
    rounds = work.precision == Precision::bf16;
    token_f = shapes.tokens * shapes.hidden * 4;
    gathered = tp > 1 ? shapes.tokens * shapes.hidden * w : 0;
    shard = shapes.shard_tokens * shapes.hidden * w;
    shard_f = shapes.shard_tokens * shapes.hidden * 4;
    sends_rows = layout.tp * layout.ep > 1;
  }
  // A product summed over blocks, then scattered over tp: the result itself included.
  double partial_sums(double result_f) const {
    return std::max(result_f * (1 + blocks_depth), tp > 1 ? 2 * result_f : 0);
  }

  RankShapes shapes;
  double w, tp, blocks_depth, chunks_depth, expert_depth, token_f, gathered, shard, shard_f;
  int64_t chunks;
  bool rounds, sends_rows;
};

double moe_forward_temporaries(const Sizes& z) {
  const RankShapes& s = z.shapes;
  double rows_f = s.routed_rows * s.hidden * 4, inner = s.routed_rows * s.expert_ffn * z.w;
  double sorted = z.sends_rows ? s.routed_rows / z.tp * s.hidden * z.w : 0;
  double packed = 2 * s.expert_ffn * s.hidden * z.w;
  double experts = inner + rows_f * (1 + z.blocks_depth) + packed / 2;
  double back = rows_f * (z.tp > 1 ? 2 : 1) + (z.rounds ? rows_f / z.tp / 2 : 0);
  return s.shard_tokens * s.all_experts * 4 + sorted + std::max({inner + packed, experts, back});
}

double moe_backward_temporaries(const Sizes& z) {
  const RankShapes& s = z.shapes;
  double rows_f = s.routed_rows * s.hidden * 4, width = s.routed_rows * s.expert_ffn * z.w;
  double sorted = s.routed_rows / z.tp * s.hidden * z.w;
  double arrived = z.sends_rows ? s.routed_rows * s.hidden * z.w : 0;
  double leaves = z.expert_depth * 2 * s.expert_ffn * s.hidden * 4;
  double experts = arrived + 4 * width + std::max(leaves, rows_f * (1 + z.blocks_depth));
  double back = rows_f * (z.tp > 1 ? 2 : 1) + (z.rounds ? rows_f / z.tp / 2 : 0);
  return 3 * s.shard_tokens * s.all_experts * 4 + sorted + std::max(experts, back);
}

double dense_forward_temporaries(const Sizes& z) {
  return z.gathered + z.shapes.tokens * z.shapes.ffn * z.w + z.partial_sums(z.token_f);
}

double dense_backward_temporaries(const Sizes& z) {
  const RankShapes& s = z.shapes;
  double inner = s.tokens * s.ffn * z.w, leaf = z.chunks_depth * s.ffn * s.hidden * 4;
  double later = 2 * inner + std::max(2 * leaf, z.partial_sums(z.token_f));
  return 2 * z.gathered + inner + std::max(leaf, later);
}

double attention_backward_temporaries(const ModelSpec& model, const Sizes& z) {
  const RankShapes& s = z.shapes;
  double heads = s.tokens * (2 * s.q + 2 * s.kv) * z.w;  // dout, dq, dk, dv
  double leaf = z.chunks_depth * s.q * s.hidden * 4;
  double unnorm = model.qk_norm ? s.tokens * s.q * z.w : 0;
  return 2 * z.gathered + heads + std::max({leaf, unnorm, z.partial_sums(z.token_f)});
}

}  // namespace

double total_bytes(const std::vector<KeptTensor>& tensors) {
  double sum = 0;
  for (const KeptTensor& tensor : tensors) sum += tensor.bytes();
  return sum;
}

std::vector<KeptTensor> kept_by_attention(const ModelSpec& model, const Work& work, const Layout& layout) {
  RankShapes s = rank_shapes(model, work, layout);
  double w = bytes_of(work.precision);
  std::vector<KeptTensor> kept = {
      {"x, input of the block", s.shard_tokens * s.hidden, w},
      {"attention norm: 1/rms", s.shard_tokens, 4},
      {"attention norm output", s.shard_tokens * s.hidden, w},
      {"q, k, v after rope", s.tokens * (s.q + 2 * s.kv), w},
      {"attention output", s.tokens * s.q, w},
      {"log of the sum of exponentials", s.tokens * s.heads, 4},
      {"x after attention", s.shard_tokens * s.hidden, w},
      {"ffn norm: 1/rms", s.shard_tokens, 4},
      {"ffn norm output", s.shard_tokens * s.hidden, w},
  };
  if (!model.qk_norm) return kept;
  kept.push_back({"q, k before their norms", s.tokens * (s.q + s.kv), w});
  kept.push_back({"q, k norms: 1/rms", s.tokens * (s.q + s.kv) / static_cast<double>(model.head_dim), 4});
  return kept;
}

std::vector<KeptTensor> kept_by_ffn(const ModelSpec& model, const Work& work, const Layout& layout,
                                    int64_t layer) {
  RankShapes s = rank_shapes(model, work, layout);
  double w = bytes_of(work.precision), slots = s.routed_rows / static_cast<double>(layout.tp);
  if (!model.is_moe(layer)) return {{"gate and up", s.tokens * 2 * s.ffn, w}};
  std::vector<KeptTensor> kept = {
      {"router probabilities", s.shard_tokens * s.all_experts, 4},
      {"expert, weight, row and token of each slot", slots, 4 + 4 + 8 + 8},
      {"rows of this rank's experts", s.routed_rows * s.hidden, w},
      {"experts: gate and up", s.routed_rows * 2 * s.expert_ffn, w},
      {"rows that came back", slots * s.hidden, w},
  };
  return kept;
}

double block_input_bytes(const ModelSpec& model, const Work& work, const Layout& layout) {
  RankShapes s = rank_shapes(model, work, layout);
  return s.shard_tokens * s.hidden * bytes_of(work.precision);
}

double batch_bytes(const Work& work) {
  return static_cast<double>(work.micro_batch_tokens()) * (3 * 8 + 4);
}

Temporaries block_temporaries(const ModelSpec& model, const Work& work, const Layout& layout, int64_t layer) {
  Sizes z(model, work, layout);
  bool moe = model.is_moe(layer);
  Temporaries t;
  t.attention_forward = z.gathered + z.partial_sums(z.token_f);
  t.ffn_forward = moe ? moe_forward_temporaries(z) : dense_forward_temporaries(z);
  // dy of the block and, in the FFN, nothing more; in attention also the gradient between the two.
  t.ffn_backward = z.shard + (moe ? moe_backward_temporaries(z) : dense_backward_temporaries(z));
  t.attention_backward = 2 * z.shard + attention_backward_temporaries(model, z);
  return t;
}

HeadTemporaries head_temporaries(const ModelSpec& model, const Work& work, const Layout& layout) {
  Sizes z(model, work, layout);
  const RankShapes& s = z.shapes;
  double logits = s.tokens * s.vocab * 4, rounded = z.rounds ? s.tokens * s.vocab * z.w : 0;
  double base = 2 * z.shard + z.gathered + logits + rounded;  // x and its norm
  return {base + z.chunks_depth * s.vocab * s.hidden * 4, base + z.partial_sums(z.token_f)};
}

double embedding_backward_temporaries(const ModelSpec& model, const Work& work, const Layout& layout) {
  Sizes z(model, work, layout);
  return z.shard + z.gathered + z.chunks_depth * z.shapes.vocab * z.shapes.hidden * 4;
}

}  // namespace tessera::plan
