#include "plan/step_time.h"

#include <algorithm>

#include "plan/pipeline.h"
#include "plan/shapes.h"

namespace tessera::plan {
namespace {

// Devices between neighbours along an axis: which tier a group talks over.
int64_t stride_of(const Layout& layout, Axis axis) {
  int64_t stride = 1;
  for (Axis inner : layout.order) {
    if (inner == axis) break;
    stride *= layout.degree(inner);
  }
  return stride;
}

// Prices what one rank of one stage does. Methods add to `at`, so that a forward and its recomputation are the
// same calls.
class Pricer {
 public:
  Pricer(const ModelSpec& model, const Work& work, const Layout& layout, const Cluster& cluster)
      : model_(model),
        work_(work),
        layout_(layout),
        cluster_(cluster),
        shapes_(rank_shapes(model, work, layout)),
        w_(bytes_of(work.precision)),
        exact_(work.numerics == Numerics::exact) {}

  Seconds block_forward(int64_t layer) const {
    Seconds at;
    gather_weights(at, layer_weights(model_, work_, layout_, layer));
    attention_forward(at);
    if (model_.is_moe(layer))
      moe_forward(at);
    else
      ffn_forward(at);
    return at;
  }

  Seconds block_backward(int64_t layer) const {
    WeightShapes weights = layer_weights(model_, work_, layout_, layer);
    Seconds at;
    if (layout_.recompute == Recompute::full) at += block_forward(layer);
    gather_weights(at, weights);
    if (model_.is_moe(layer))
      moe_backward(at);
    else
      ffn_backward(at);
    attention_backward(at);
    reduce_gradients(at, weights);
    return at;
  }

  // The look-up of every place, then each token's row from the place that has it.
  Seconds embedding_forward() const {
    Seconds at;
    gather_weights(at, {embedding_weights(model_, work_, layout_), 0});
    op(at, Op::move_rows, shapes_.tokens * shapes_.hidden);
    at.tp += tp_collective(Collective::all_to_all, shapes_.tokens * shapes_.hidden * w_);
    if (layout_.tp > 1) op(at, Op::move_rows, shapes_.shard_tokens * shapes_.hidden);
    return at;
  }
  Seconds embedding_backward() const {
    double weights = embedding_weights(model_, work_, layout_);
    Seconds at;
    gather_tokens(at);
    op(at, Op::accumulate, shapes_.tokens * shapes_.hidden);
    op(at, Op::accumulate, (2 * chunks() - 1) * weights);  // each chunk's leaf is cleared, then the tree
    reduce_gradients(at, {weights, 0});
    return at;
  }

  // Head and loss, forward and backward: the trainer runs both in the last stage's forward.
  Seconds head() const {
    const RankShapes& s = shapes_;
    WeightShapes weights{embedding_weights(model_, work_, layout_), 0};
    Seconds at;
    gather_weights(at, weights);
    op(at, Op::norm, s.shard_tokens * s.hidden);
    gather_tokens(at);
    product(at, Product::nt, s.tokens, s.vocab, s.hidden);
    op(at, Op::loss, s.tokens * s.vocab);
    at.tp += 3 * tp_collective(Collective::all_gather, s.tokens * 4 * count(layout_.tp));
    if (rounds()) op(at, Op::add, s.tokens * s.vocab);
    weight_gradient(at, s.vocab, s.hidden, s.tokens);
    column_input_gradient(at, s.tokens, s.vocab, s.hidden);
    scatter_tokens(at);
    op(at, Op::norm_backward, s.shard_tokens * s.hidden);
    reduce_gradients(at, weights);
    return at;
  }

  double transfer_s() const {
    if (layout_.pp == 1) return 0;
    return collective_s(cluster_, Collective::send, 2, stride_of(layout_, Axis::pp),
                        shapes_.shard_tokens * shapes_.hidden * w_);
  }

  // Once per step on a rank of `stage`: the last reductions, the gradient norm, the update, weights sent back.
  Seconds after_slots(int64_t stage) const {
    WeightShapes weights = stage_weights(model_, work_, layout_, stage);
    double share =
        weights.dense / count(layout_.replicas()) + weights.experts / count(layout_.expert_replicas());
    Seconds at;
    if (!every_slot(layout_.fsdp)) at.dp += reduce_scatter(weights.dense, layout_.replicas(), fsdp_stride());
    if (!every_slot(expert_fsdp(layout_)))
      at.dp += reduce_scatter(weights.experts, layout_.expert_replicas(), fsdp_stride() * layout_.ep);
    op(at, Op::squares, share);
    op(at, Op::optimizer, share);
    if (rounds()) op(at, Op::add, share);
    int64_t stride = stride_of(layout_, Axis::dp);
    at.dp += collective_s(cluster_, Collective::all_gather, layout_.dp, stride,
                          w_ * weights.dense / count(layout_.fsdp));
    at.dp += collective_s(cluster_, Collective::all_gather, expert_dp(layout_), stride,
                          w_ * weights.experts / count(expert_fsdp(layout_)));
    return at;
  }

 private:
  static double count(int64_t value) { return static_cast<double>(value); }

  void op(Seconds& at, Op kind, double elements) const {
    at.compute += cluster_.op_s(kind, work_.precision, elements);
  }
  void product(Seconds& at, Product kind, double m, double n, double k, double times = 1) const {
    if (m * n * k <= 0) return;
    at.compute += times * cluster_.product_s(kind, work_.precision, m, n, k);
  }

  bool rounds() const { return work_.precision == Precision::bf16; }
  // Parts of sums over tokens and over columns that tp may split: see src/model/context.h.
  double chunks() const { return exact_ ? count(work_.seq_chunks) : count(layout_.tp); }
  double blocks() const { return exact_ ? count(work_.tp_blocks / layout_.tp) : 1; }

  // out[m, n] with its inner length k split in blocks, partial results added in float32.
  void block_sums(Seconds& at, Product kind, double m, double n, double k, double times = 1) const {
    product(at, kind, m, n, k / blocks(), blocks() * times);
    op(at, Op::accumulate, times * (blocks() - 1) * m * n);
  }
  void row_parallel(Seconds& at, double m, double n, double k, double times = 1) const {
    block_sums(at, Product::nt, m, n, k, times);
  }
  void column_input_gradient(Seconds& at, double m, double n_out, double n_in, double times = 1) const {
    block_sums(at, Product::nn, m, n_in, n_out, times);
  }
  // dW[n_out, n_in] over `rows` tokens in `leaves` parts, summed by the tree.
  void weight_gradient(Seconds& at, double n_out, double n_in, double rows, double leaves, double times) const {
    product(at, Product::tn, n_out, n_in, rows / leaves, leaves * times);
    op(at, Op::accumulate, times * (leaves - 1) * n_out * n_in);
  }
  void weight_gradient(Seconds& at, double n_out, double n_in, double rows) const {
    weight_gradient(at, n_out, n_in, rows, chunks(), 1);
  }

  double tp_collective(Collective collective, double bytes) const {
    return collective_s(cluster_, collective, layout_.tp, stride_of(layout_, Axis::tp), bytes);
  }
  void gather_tokens(Seconds& at) const {
    at.tp += tp_collective(Collective::all_gather, shapes_.tokens * shapes_.hidden * w_);
  }
  // Partial sums in float32 to the rank that keeps the tokens, added there.
  void scatter_tokens(Seconds& at) const {
    at.tp += tp_collective(Collective::all_to_all, shapes_.tokens * shapes_.hidden * 4);
    op(at, Op::accumulate, (count(layout_.tp) - 1) * shapes_.shard_tokens * shapes_.hidden);
  }

  void attention_forward(Seconds& at) const {
    const RankShapes& s = shapes_;
    op(at, Op::norm, s.shard_tokens * s.hidden);
    gather_tokens(at);
    project_heads(at, Product::nt, 1);
    if (model_.qk_norm) op(at, Op::norm, s.tokens * (s.q + s.kv));
    op(at, Op::rope, s.tokens * (s.q + s.kv));
    at.compute += attention_s(1, false);
    cp_exchange(at, 1);
    row_parallel(at, s.tokens, s.hidden, s.q);
    scatter_tokens(at);
    op(at, Op::add, s.shard_tokens * s.hidden);
  }
  void attention_backward(Seconds& at) const {
    const RankShapes& s = shapes_;
    gather_tokens(at);
    gather_tokens(at);
    product(at, Product::nn, s.tokens, s.q, s.hidden);
    weight_gradient(at, s.hidden, s.q, s.tokens);
    at.compute += attention_s(2.5, true);
    cp_exchange(at, 2);
    op(at, Op::rope, s.tokens * (s.q + s.kv));
    if (model_.qk_norm) op(at, Op::norm_backward, s.tokens * (s.q + s.kv));
    for (double width : {s.q, s.kv, s.kv}) {
      column_input_gradient(at, s.tokens, width, s.hidden);
      weight_gradient(at, width, s.hidden, s.tokens);
    }
    scatter_tokens(at);
    end_of_norm(at);
  }
  // q, k and v are three products.
  void project_heads(Seconds& at, Product kind, double times) const {
    for (double width : {shapes_.q, shapes_.kv, shapes_.kv})
      product(at, kind, shapes_.tokens, width, shapes_.hidden, times);
  }
  // What ends the backward of attention and FFN: rounding, the norm, the residual.
  void end_of_norm(Seconds& at) const {
    double elements = shapes_.shard_tokens * shapes_.hidden;
    if (rounds()) op(at, Op::add, elements);
    op(at, Op::norm_backward, elements);
    op(at, Op::add, elements);
  }
  // Two products over the tokens that each token sees; backward five where forward has two.
  double attention_s(double times, bool backward) const {
    double flops = 4 * shapes_.tokens * shapes_.visible_tokens * shapes_.q;
    return cluster_.attention_s(work_.precision, count(model_.head_dim), times * flops, backward);
  }
  // Keys and values of the other sequence parts pass by, and their gradients in backward.
  void cp_exchange(Seconds& at, double times) const {
    at.cp += times * collective_s(cluster_, Collective::all_gather, layout_.cp, stride_of(layout_, Axis::cp),
                                  count(layout_.cp) * shapes_.tokens * 2 * shapes_.kv * w_);
  }

  void ffn_forward(Seconds& at) const {
    const RankShapes& s = shapes_;
    op(at, Op::norm, s.shard_tokens * s.hidden);
    gather_tokens(at);
    product(at, Product::nt, s.tokens, 2 * s.ffn, s.hidden);
    op(at, Op::silu, s.tokens * s.ffn);
    row_parallel(at, s.tokens, s.hidden, s.ffn);
    scatter_tokens(at);
    op(at, Op::add, s.shard_tokens * s.hidden);
  }
  void ffn_backward(Seconds& at) const {
    const RankShapes& s = shapes_;
    gather_tokens(at);
    gather_tokens(at);
    op(at, Op::silu, s.tokens * s.ffn);  // computed again
    weight_gradient(at, s.hidden, s.ffn, s.tokens);
    product(at, Product::nn, s.tokens, s.ffn, s.hidden);
    op(at, Op::silu_backward, s.tokens * s.ffn);
    weight_gradient(at, 2 * s.ffn, s.hidden, s.tokens);
    column_input_gradient(at, s.tokens, s.ffn, s.hidden, 2);  // gate, then up
    scatter_tokens(at);
    end_of_norm(at);
  }

  // Balanced routing. The rows of one expert come in segments, one per (tp place, ep place), each a product.
  double segments() const { return count(layout_.tp * layout_.ep); }
  double segment_rows() const { return shapes_.routed_rows / shapes_.all_experts / count(layout_.tp); }
  double segment_products() const { return shapes_.experts * segments(); }

  // Rows of this rank's tokens to the ranks of their experts; the owner's tp ranks gather each other's.
  void rows_to_experts(Seconds& at) const {
    ep_exchange(at);
    at.tp += tp_collective(Collective::all_gather, shapes_.routed_rows * shapes_.hidden * w_);
  }
  void rows_from_experts(Seconds& at) const {
    double elements = shapes_.routed_rows * shapes_.hidden;
    at.tp += tp_collective(Collective::all_to_all, elements * 4);
    op(at, Op::accumulate, elements * (count(layout_.tp) - 1) / count(layout_.tp));
    if (rounds()) op(at, Op::add, elements / count(layout_.tp));
    ep_exchange(at);
  }
  void ep_exchange(Seconds& at) const {
    if (layout_.ep == 1) return;
    at.ep += collective_s(cluster_, Collective::all_to_all, layout_.ep, fsdp_stride(),
                          shapes_.routed_rows / count(layout_.tp) * shapes_.hidden * w_);
  }
  double slot_elements() const { return shapes_.routed_rows / count(layout_.tp) * shapes_.hidden; }

  void moe_forward(Seconds& at) const {
    const RankShapes& s = shapes_;
    op(at, Op::norm, s.shard_tokens * s.hidden);
    product(at, Product::nt, s.shard_tokens, s.all_experts, s.hidden);
    op(at, Op::route, s.shard_tokens * s.all_experts);
    exchange_counts(at);
    op(at, Op::move_rows, slot_elements());
    rows_to_experts(at);
    op(at, Op::pack, s.experts * 3 * s.expert_ffn * s.hidden);
    product(at, Product::nt, segment_rows(), 2 * s.expert_ffn, s.hidden, segment_products());
    op(at, Op::silu, s.routed_rows * s.expert_ffn);
    row_parallel(at, segment_rows(), s.hidden, s.expert_ffn, segment_products());
    rows_from_experts(at);
    op(at, Op::combine, slot_elements());
    op(at, Op::add, s.shard_tokens * s.hidden);
  }
  void exchange_counts(Seconds& at) const {
    double bytes = 8 * shapes_.all_experts * chunks();
    if (layout_.ep > 1)
      at.ep += collective_s(cluster_, Collective::all_to_all, layout_.ep, fsdp_stride(), bytes);
    at.tp += 2 * tp_collective(Collective::all_gather, bytes);
  }
  void moe_backward(Seconds& at) const {
    const RankShapes& s = shapes_;
    op(at, Op::combine, 2 * slot_elements());
    op(at, Op::route, s.shard_tokens * s.all_experts);
    rows_to_experts(at);
    double leaves = count(layout_.ep) * chunks(), rows = s.routed_rows * count(layout_.ep) / s.all_experts;
    op(at, Op::silu, s.routed_rows * s.expert_ffn);
    product(at, Product::nn, segment_rows(), s.expert_ffn, s.hidden, segment_products());
    weight_gradient(at, s.hidden, s.expert_ffn, rows, leaves, s.experts);
    op(at, Op::silu_backward, s.routed_rows * s.expert_ffn);
    weight_gradient(at, 2 * s.expert_ffn, s.hidden, rows, leaves, s.experts);
    column_input_gradient(at, segment_rows(), s.expert_ffn, s.hidden, 2 * segment_products());
    rows_from_experts(at);
    op(at, Op::combine, slot_elements());  // sum over slots
    product(at, Product::nn, s.shard_tokens, s.hidden, s.all_experts);
    weight_gradient(at, s.all_experts, s.hidden, s.shard_tokens);
    end_of_norm(at);
  }

  int64_t fsdp_stride() const { return stride_of(layout_, Axis::fsdp); }
  // fsdp: a block's weights whole before use.
  void gather_weights(Seconds& at, const WeightShapes& weights) const {
    at.dp += collective_s(cluster_, Collective::all_gather, layout_.fsdp, fsdp_stride(), w_ * weights.dense);
    at.dp += collective_s(cluster_, Collective::all_gather, expert_fsdp(layout_), fsdp_stride() * layout_.ep,
                          w_ * weights.experts);
  }
  // Leaf gradients go to the owners of their slices every slot, or are added up and go once.
  bool every_slot(int64_t shards) const { return exact_ || shards > 1; }
  void reduce_gradients(Seconds& at, const WeightShapes& weights) const {
    reduce_unit(at, weights.dense, layout_.fsdp, layout_.replicas(), fsdp_stride());
    reduce_unit(at, weights.experts, expert_fsdp(layout_), layout_.expert_replicas(),
                fsdp_stride() * layout_.ep);
  }
  void reduce_unit(Seconds& at, double elements, int64_t shards, int64_t replicas, int64_t stride) const {
    if (every_slot(shards)) at.dp += reduce_scatter(elements, replicas, stride);
    op(at, Op::accumulate, every_slot(shards) ? elements / count(replicas) : elements);
  }
  // Pieces to their owners, then the sum of what came.
  double reduce_scatter(double elements, int64_t ranks, int64_t stride) const {
    if (ranks == 1 || elements <= 0) return 0;
    double local_adds = elements * (count(ranks) - 1) / count(ranks);
    return collective_s(cluster_, Collective::all_to_all, ranks, stride, 4 * elements) +
           cluster_.op_s(Op::accumulate, work_.precision, local_adds);
  }

  const ModelSpec& model_;
  const Work& work_;
  const Layout& layout_;
  const Cluster& cluster_;
  RankShapes shapes_;
  double w_;
  bool exact_;
};

// Where devices are not shared, what fsdp sends is hidden behind the neighbouring block's work; only what does
// not fit behind it shows. `busy`: the work that can hide it.
void hide_behind(Seconds& at, double busy) {
  at.dp = std::max(0.0, at.dp - busy);
}

StageTime stage_time_of(const Pricer& price, const ModelSpec& model, const Layout& layout,
                        const Cluster& cluster, int64_t stage) {
  StageTime time;
  LayerRange range = stage_layers(model, layout, stage);
  for (int64_t layer = range.first; layer < range.last; ++layer) {
    time.forward += price.block_forward(layer);
    time.backward += price.block_backward(layer);
  }
  if (stage == 0) time.forward += price.embedding_forward(), time.backward += price.embedding_backward();
  if (stage == layout.pp - 1) time.forward += price.head();
  if (!cluster.shares_cores()) {
    hide_behind(time.forward, time.forward.compute);
    hide_behind(time.backward, time.backward.compute);
  }
  time.forward.host += cluster.action_overhead_s;
  time.backward.host += cluster.action_overhead_s;
  return time;
}

// Divides computation by what `threads` kernel threads gain.
void use_threads(StageTime& time, double gain) {
  time.forward.compute /= gain;
  time.backward.compute /= gain;
}

// Wall seconds by cause on the slowest stage; what is left of the pipeline's time is bubble.
StepTime account(const StageTime& slowest, double slots, double speed, double pipeline_s, const Seconds& after,
                 double transfer_s) {
  StepTime step;
  Seconds busy = slots * slowest.forward;
  busy += slots * slowest.backward;
  busy = (1 / speed) * busy;
  if (busy.total() > pipeline_s) busy = (pipeline_s / busy.total()) * busy;
  step.pp = std::min(2 * transfer_s, pipeline_s - busy.total());
  step.bubble = pipeline_s - busy.total() - step.pp;
  Seconds last = (1 / speed) * after;
  step.optimizer = last.compute;
  last.compute = 0;
  step.seconds = busy;
  step.seconds += last;
  step.step_s = pipeline_s + last.total() + step.optimizer;
  return step;
}

}  // namespace

Seconds& Seconds::operator+=(const Seconds& other) {
  compute += other.compute, tp += other.tp, cp += other.cp;
  ep += other.ep, dp += other.dp, host += other.host;
  return *this;
}

Seconds operator*(double factor, Seconds s) {
  s.compute *= factor, s.tp *= factor, s.cp *= factor;
  s.ep *= factor, s.dp *= factor, s.host *= factor;
  return s;
}

StageTime stage_time(const ModelSpec& model, const Work& work, const Layout& layout, const Cluster& cluster,
                     int64_t stage) {
  return stage_time_of(Pricer(model, work, layout, cluster), model, layout, cluster, stage);
}

StepTime step_time(const ModelSpec& model, const Work& work, const Layout& layout, const Cluster& cluster,
                   int64_t threads) {
  Pricer price(model, work, layout, cluster);
  int64_t processes = layout.processes();
  if (threads == 0) threads = std::max<int64_t>(1, cluster.cores / processes);
  double gain = cluster.speed_of_threads(threads);
  int64_t slots = work.micro_batches() / layout.replicas();
  std::vector<double> forward_s, backward_s;
  StageTime slowest;
  Seconds after;
  for (int64_t stage = 0; stage < layout.pp; ++stage) {
    StageTime time = stage_time_of(price, model, layout, cluster, stage);
    use_threads(time, gain);
    forward_s.push_back(time.forward.total());
    backward_s.push_back(time.backward.total());
    if (time.forward.total() + time.backward.total() > slowest.forward.total() + slowest.backward.total())
      slowest = time;
    Seconds end = price.after_slots(stage);
    if (end.total() > after.total()) after = end;
  }
  Schedule schedule = make_schedule(layout.schedule, layout.pp, slots);
  double transfer_s = price.transfer_s();
  double pipeline_s =
      shared_makespan(schedule, forward_s, backward_s, transfer_s, processes / layout.pp, cluster);
  double speed = cluster.speed_of(static_cast<double>(processes));
  return account(slowest, static_cast<double>(slots), speed, pipeline_s, after, transfer_s);
}

}  // namespace tessera::plan
