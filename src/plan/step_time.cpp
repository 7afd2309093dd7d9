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

  Seconds embedding_forward() const {
    Seconds at;
    gather_weights(at, {embedding_weights(model_, work_, layout_), 0});
    op(at, Op::move_rows, shapes_.tokens * shapes_.hidden);
    tp_exchange(at, 4);
    return at;
  }
  Seconds embedding_backward() const {
    Seconds at;
    tp_exchange(at, w_);
    op(at, Op::accumulate, shapes_.tokens * shapes_.hidden);
    reduce_gradients(at, {embedding_weights(model_, work_, layout_), 0});
    return at;
  }

  // Forward of head and loss: logits, their maximum and sum over the split vocabulary.
  Seconds head_forward() const {
    Seconds at;
    gather_weights(at, {embedding_weights(model_, work_, layout_), 0});
    op(at, Op::norm, shapes_.shard_tokens * shapes_.hidden);
    tp_exchange(at, w_);
    product(at, Product::nt, shapes_.tokens, shapes_.vocab, shapes_.hidden);
    op(at, Op::loss, shapes_.tokens * shapes_.vocab);
    tp_rows(at, 3 * 4);
    return at;
  }
  Seconds head_backward() const {
    WeightShapes weights{embedding_weights(model_, work_, layout_), 0};
    Seconds at;
    gather_weights(at, weights);
    column_input_gradient(at, shapes_.tokens, shapes_.vocab, shapes_.hidden);
    weight_gradient(at, shapes_.vocab, shapes_.hidden, shapes_.tokens, 1);
    tp_exchange(at, 4);
    op(at, Op::norm_backward, shapes_.shard_tokens * shapes_.hidden);
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
    if (!exact_) {
      at.dp += dp_collective(4 * weights.dense / count(layout_.fsdp), layout_.dp);
      at.dp += dp_collective(4 * weights.experts / count(expert_fsdp(layout_)), expert_dp(layout_));
    }
    op(at, Op::accumulate, share);
    op(at, Op::optimizer, share);
    at.dp += dp_gather(w_ * weights.dense / count(layout_.fsdp), layout_.dp);
    at.dp += dp_gather(w_ * weights.experts / count(expert_fsdp(layout_)), expert_dp(layout_));
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

  // A product whose inner length is split over tp: in exact mode once per block of tp_blocks, partial results
  // added in float32.
  double blocks_here() const { return exact_ ? count(work_.tp_blocks / layout_.tp) : 1; }
  void row_parallel(Seconds& at, double m, double n, double k, double times = 1) const {
    double blocks = blocks_here();
    product(at, Product::nt, m, n, k / blocks, blocks * times);
    if (blocks > 1) op(at, Op::accumulate, times * (blocks - 1) * m * n);
  }
  void column_input_gradient(Seconds& at, double m, double n_out, double n_in, double times = 1) const {
    double blocks = blocks_here();
    product(at, Product::nn, m, n_in, n_out / blocks, blocks * times);
    if (blocks > 1) op(at, Op::accumulate, times * (blocks - 1) * m * n_in);
  }
  // dW[n_out, n_in] over `rows` tokens: in exact mode one partial per sequence chunk, summed by the tree.
  void weight_gradient(Seconds& at, double n_out, double n_in, double rows, double times) const {
    double chunks = exact_ ? count(work_.seq_chunks) : 1;
    product(at, Product::tn, n_out, n_in, rows / chunks, chunks * times);
    if (chunks > 1) op(at, Op::accumulate, times * (chunks - 1) * n_out * n_in);
  }

  // All rows of the micro-batch gathered from, or partial sums scattered to, the tp ranks.
  void tp_exchange(Seconds& at, double bytes_per_element) const {
    double elements = shapes_.tokens * shapes_.hidden;
    bool sums = bytes_per_element == 4;
    at.tp += collective_s(cluster_, sums ? Collective::all_to_all : Collective::all_gather, layout_.tp,
                          stride_of(layout_, Axis::tp), elements * bytes_per_element);
    if (sums && layout_.tp > 1) op(at, Op::accumulate, elements * (count(layout_.tp) - 1) / count(layout_.tp));
  }
  // Small vectors of one value per token, from all tp ranks.
  void tp_rows(Seconds& at, double bytes_per_token) const {
    at.tp += collective_s(cluster_, Collective::all_gather, layout_.tp, stride_of(layout_, Axis::tp),
                          shapes_.tokens * bytes_per_token * count(layout_.tp));
  }
  void ep_exchange(Seconds& at) const {
    if (layout_.ep == 1) return;
    int64_t stride = stride_of(layout_, Axis::fsdp);
    at.ep += collective_s(cluster_, Collective::all_to_all, layout_.ep, stride, 8 * shapes_.all_experts);
    at.ep += collective_s(cluster_, Collective::all_to_all, layout_.ep, stride,
                          shapes_.routed_rows * shapes_.hidden * w_);
  }

  void attention_forward(Seconds& at) const {
    const RankShapes& s = shapes_;
    op(at, Op::norm, s.shard_tokens * s.hidden);
    tp_exchange(at, w_);
    product(at, Product::nt, s.tokens, s.q + 2 * s.kv, s.hidden);
    if (model_.qk_norm) op(at, Op::norm, s.tokens * (s.q + s.kv));
    op(at, Op::rope, s.tokens * (s.q + s.kv));
    at.compute += cluster_.attention_s(work_.precision, attention_flops(), false);
    cp_exchange(at, 1);
    row_parallel(at, s.tokens, s.hidden, s.q);
    tp_exchange(at, 4);
    op(at, Op::add, s.shard_tokens * s.hidden);
  }
  void attention_backward(Seconds& at) const {
    const RankShapes& s = shapes_;
    tp_exchange(at, w_);
    product(at, Product::nn, s.tokens, s.q, s.hidden);
    weight_gradient(at, s.hidden, s.q, s.tokens, 1);
    at.compute += cluster_.attention_s(work_.precision, 2.5 * attention_flops(), true);
    cp_exchange(at, 2);
    op(at, Op::rope, s.tokens * (s.q + s.kv));
    if (model_.qk_norm) op(at, Op::norm_backward, s.tokens * (s.q + s.kv));
    column_input_gradient(at, s.tokens, s.q + 2 * s.kv, s.hidden);
    weight_gradient(at, s.q + 2 * s.kv, s.hidden, s.tokens, 1);
    tp_exchange(at, 4);
    op(at, Op::norm_backward, s.shard_tokens * s.hidden);
    op(at, Op::add, s.shard_tokens * s.hidden);
  }
  // Two products over the tokens that each token sees.
  double attention_flops() const { return 4 * shapes_.tokens * shapes_.visible_tokens * shapes_.q; }
  // Keys and values of the other sequence parts pass by, and their gradients in backward.
  void cp_exchange(Seconds& at, double times) const {
    at.cp += times * collective_s(cluster_, Collective::all_gather, layout_.cp, stride_of(layout_, Axis::cp),
                                  count(layout_.cp) * shapes_.tokens * 2 * shapes_.kv * w_);
  }

  void ffn_forward(Seconds& at) const {
    const RankShapes& s = shapes_;
    op(at, Op::norm, s.shard_tokens * s.hidden);
    tp_exchange(at, w_);
    product(at, Product::nt, s.tokens, 2 * s.ffn, s.hidden);
    op(at, Op::silu, s.tokens * s.ffn);
    row_parallel(at, s.tokens, s.hidden, s.ffn);
    tp_exchange(at, 4);
    op(at, Op::add, s.shard_tokens * s.hidden);
  }
  void ffn_backward(Seconds& at) const {
    const RankShapes& s = shapes_;
    tp_exchange(at, w_);
    product(at, Product::nn, s.tokens, s.ffn, s.hidden);
    weight_gradient(at, s.hidden, s.ffn, s.tokens, 1);
    op(at, Op::silu_backward, s.tokens * s.ffn);
    column_input_gradient(at, s.tokens, 2 * s.ffn, s.hidden);
    weight_gradient(at, 2 * s.ffn, s.hidden, s.tokens, 1);
    tp_exchange(at, 4);
    op(at, Op::norm_backward, s.shard_tokens * s.hidden);
    op(at, Op::add, s.shard_tokens * s.hidden);
  }

  // Balanced routing: each expert of this rank computes an equal share of the rows.
  double rows_per_expert() const { return shapes_.routed_rows / shapes_.experts; }

  void moe_forward(Seconds& at) const {
    const RankShapes& s = shapes_;
    op(at, Op::norm, s.shard_tokens * s.hidden);
    tp_exchange(at, w_);
    at.compute += cluster_.product_s(Product::nt, Precision::float32, s.tokens, s.all_experts, s.hidden);
    op(at, Op::route, s.tokens * s.all_experts);
    op(at, Op::move_rows, s.routed_rows * s.hidden);
    ep_exchange(at);
    if (layout_.ep > 1) op(at, Op::move_rows, s.routed_rows * s.hidden);
    product(at, Product::nt, rows_per_expert(), 2 * s.expert_ffn, s.hidden, s.experts);
    op(at, Op::silu, s.routed_rows * s.expert_ffn);
    row_parallel(at, rows_per_expert(), s.hidden, s.expert_ffn, s.experts);
    ep_exchange(at);
    op(at, Op::combine, s.routed_rows * s.hidden);
    tp_exchange(at, 4);
    op(at, Op::add, s.shard_tokens * s.hidden);
  }
  void moe_backward(Seconds& at) const {
    const RankShapes& s = shapes_;
    tp_exchange(at, w_);
    op(at, Op::combine, 2 * s.routed_rows * s.hidden);
    ep_exchange(at);
    product(at, Product::nn, rows_per_expert(), s.expert_ffn, s.hidden, s.experts);
    weight_gradient(at, s.hidden, s.expert_ffn, rows_per_expert(), s.experts);
    op(at, Op::silu_backward, s.routed_rows * s.expert_ffn);
    column_input_gradient(at, rows_per_expert(), 2 * s.expert_ffn, s.hidden, s.experts);
    weight_gradient(at, 2 * s.expert_ffn, s.hidden, rows_per_expert(), s.experts);
    ep_exchange(at);
    op(at, Op::move_rows, 2 * s.routed_rows * s.hidden);
    op(at, Op::route, s.tokens * s.all_experts);
    router_backward(at);
    tp_exchange(at, 4);
    op(at, Op::norm_backward, s.shard_tokens * s.hidden);
    op(at, Op::add, s.shard_tokens * s.hidden);
  }
  void router_backward(Seconds& at) const {
    const RankShapes& s = shapes_;
    at.compute += cluster_.product_s(Product::nn, Precision::float32, s.tokens, s.hidden, s.all_experts);
    at.compute += cluster_.product_s(Product::tn, Precision::float32, s.all_experts, s.hidden, s.tokens);
  }

  double dp_gather(double bytes, int64_t ranks) const {
    return collective_s(cluster_, Collective::all_gather, ranks, stride_of(layout_, Axis::dp), bytes);
  }
  // A reduce-scatter over dp ranks: pieces to their owners, then local sums.
  double dp_collective(double bytes, int64_t ranks) const {
    if (ranks == 1) return 0;
    return collective_s(cluster_, Collective::all_to_all, ranks, stride_of(layout_, Axis::dp), bytes) +
           cluster_.op_s(Op::accumulate, work_.precision, bytes / 4);
  }
  // fsdp: a block's weights whole before use.
  void gather_weights(Seconds& at, const WeightShapes& weights) const {
    int64_t stride = stride_of(layout_, Axis::fsdp);
    at.dp += collective_s(cluster_, Collective::all_gather, layout_.fsdp, stride, w_ * weights.dense);
    at.dp += collective_s(cluster_, Collective::all_gather, expert_fsdp(layout_), stride * layout_.ep,
                          w_ * weights.experts);
  }
  // Leaf gradients of one slot: added to accumulators, sent to the owners of their shards where the mode says
  // so.
  void reduce_gradients(Seconds& at, const WeightShapes& weights) const {
    int64_t ranks = exact_ ? layout_.replicas() : layout_.fsdp;
    int64_t expert_ranks = exact_ ? layout_.expert_replicas() : expert_fsdp(layout_);
    int64_t stride = stride_of(layout_, Axis::fsdp);
    at.dp += reduce_scatter(4 * weights.dense, ranks, stride);
    at.dp += reduce_scatter(4 * weights.experts, expert_ranks, stride * layout_.ep);
    double kept = weights.dense / count(ranks) + weights.experts / count(expert_ranks);
    op(at, Op::accumulate, exact_ ? 2 * kept : kept);
  }
  double reduce_scatter(double bytes, int64_t ranks, int64_t stride) const {
    if (ranks == 1) return 0;
    double local_adds = bytes / 4 * (count(ranks) - 1) / count(ranks);
    return collective_s(cluster_, Collective::all_to_all, ranks, stride, bytes) +
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
  if (stage == layout.pp - 1) time.forward += price.head_forward(), time.backward += price.head_backward();
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
