#include "plan/serving/step_time.h"

#include <algorithm>
#include <cmath>

#include "core/numbers.h"

namespace tessera::plan::serving {
namespace {

// Ranks among which a weight is really divided.
double ways(const Weight& weight, int64_t tp) {
  if (weight.split == Split::none) return 1;
  return real(weight.max_split > 0 ? std::min(tp, weight.max_split) : tp);
}

bool is_recurrent(const Mixer& mixer) {
  return mixer.kind == MixerKind::mamba2 || mixer.kind == MixerKind::linear_attention;
}

const Layer* first_with_experts(const Blueprint& model) {
  for (const Layer& layer : model.kinds)
    if (layer.ffn.kind == FfnKind::moe) return &layer;
  return nullptr;
}

}  // namespace

double StepBreakdown::total() const {
  return products + experts + attention + cache + elementwise + tp + ep + pp + fixed + head;
}

StepModel::StepModel(const Deployment& deployment) : d_(deployment) {
  const Engine& engine = d_.engine;
  const Accelerator& device = d_.device;
  double generation_memory = engine.rate(device.generation + ".memory");
  memory_rate_ = device.memory_bytes_per_s * engine.memory * generation_memory;
  cache_rate_ = device.memory_bytes_per_s * engine.cache_memory * generation_memory;
  link_rate_ = device.link_bytes_per_s * engine.link;
  network_rate_ = device.nic_bytes_per_s * engine.network;
  attention_rate_ = device.attention * engine.attention * engine.rate(device.generation + ".attention");
  if (const Layer* layer = first_with_experts(d_.model))
    experts_ = ExpertLoad(layer->ffn.experts, layer->ffn.top_k, d_.layout.moe_ep, engine.expert_skew);
  for (size_t kind = 0; kind < d_.model.kinds.size(); ++kind)
    add_kind(d_.model.kinds[kind],
             real(std::count(d_.model.order.begin(), d_.model.order.end(), static_cast<int32_t>(kind))));
  // A draft token passes one more layer like the last, and the head.
  if (!kinds_.empty()) kinds_.back().count += real(d_.speculation.depth);
  double head = real(d_.model.vocab * d_.model.hidden) / real(d_.layout.tp);
  head_bytes_ = 2 * head;
  head_flops_ = 2 * head;
}

void StepModel::add_kind(const Layer& layer, double count) {
  LayerKind kind;
  kind.count = count;
  kind.layer = layer;
  add_products(layer, kind);
  add_mixer(layer.mixer, kind);
  kinds_.push_back(std::move(kind));
}

void StepModel::add_products(const Layer& layer, LayerKind& kind) const {
  auto rate_of = [&](WeightFormat format, double efficiency) {
    std::string key = d_.device.generation + "." + d_.device.rate_name(format);
    return d_.device.rate(format) * efficiency * d_.engine.rate(key);
  };
  auto slot = [&](WeightFormat format) -> Products& {
    double rate = rate_of(format, d_.engine.compute);
    for (Products& products : kind.products)
      if (products.rate == rate) return products;
    kind.products.push_back({.rate = rate});
    return kind.products.back();
  };
  for (const Weight& weight : weights(d_.model, layer)) {
    if (!weight.is_product()) continue;
    double elements = real(weight.out * weight.in);
    if (weight.part == Part::experts) {
      double shard = elements / real(d_.layout.moe_tp);
      kind.expert_bytes += shard * bytes_per_weight(d_.formats.experts);
      kind.expert_flops += 2 * shard;
      kind.expert_rate = rate_of(d_.formats.experts, d_.engine.expert_compute);
      kind.full_expert_rate =
          rate_of(d_.formats.experts, std::max(d_.engine.compute, d_.engine.expert_compute));
      kind.has_experts = true;
      continue;
    }
    WeightFormat format = weight.part == Part::attention ? d_.formats.attention
                          : weight.part == Part::router  ? WeightFormat::bf16
                                                         : d_.formats.ffn;
    Products& products = slot(format);
    double shard = elements * real(weight.used) / ways(weight, d_.layout.tp);
    products.bytes += shard * bytes_per_weight(format);
    products.flops_per_token += 2 * shard;
  }
}

void StepModel::add_mixer(const Mixer& mixer, LayerKind& kind) const {
  if (mixer.kind == MixerKind::none) return;
  double heads = std::max(1.0, real(mixer.heads) / real(d_.layout.tp));
  if (is_recurrent(mixer)) {
    kind.state_bytes = 2 * 4 * state_elements(mixer) / real(d_.layout.tp);
    kind.state_flops = mixing_flops_per_token(d_.model, kind.layer, 1, MaskFlops::full) / real(d_.layout.tp);
    return;
  }
  kind.prefill_flops_per_pair = 2 * heads * real(mixer.head_dim + mixer.v_head_dim);
  kind.cache_bytes_per_token = cache_elements_per_token(mixer) * d_.formats.kv_bytes;
  kind.cache_flops_per_token = kind.prefill_flops_per_pair;
  if (mixer.kind == MixerKind::attention)
    kind.cache_bytes_per_token /= real(std::min(d_.layout.tp, mixer.kv_heads));
  else if (mixer.kind == MixerKind::mla)  // decoding multiplies with the latent itself
    kind.cache_flops_per_token = 2 * heads * real(2 * mixer.kv_rank + mixer.rope_dim);
}

// Fourth power: 19 % above the larger where both are equal. A wave of tiles that is part compute, part waiting.
double StepModel::roofline(double compute, double memory, double count, StepBreakdown& sum) {
  double c2 = compute * compute, m2 = memory * memory;
  double seconds = std::sqrt(std::sqrt(c2 * c2 + m2 * m2));
  sum.multiplying += count * compute;
  sum.streaming += count * (seconds - compute);
  return count * seconds;
}

double StepModel::reduce_seconds(double bytes) const {
  double ranks = real(d_.layout.tp), domain = real(std::max<int64_t>(1, d_.device.domain));
  if (ranks <= 1) return 0;
  double inside = std::min(ranks, domain);
  double seconds = d_.engine.reduce_s + 2 * (inside - 1) / inside * bytes / link_rate_;
  if (ranks <= domain) return seconds;
  double nodes = ranks / domain;
  return seconds + 3 * d_.engine.reduce_s + 2 * (nodes - 1) / nodes * bytes / domain / network_rate_;
}

// Dispatch in 8 bits and combine in 16 bits of the rows of `tokens` tokens of each rank, to each group of ranks
// that holds one of their experts. A network carries a row once for a group; inside the domain it goes to all
// ranks among which the expert is split.
double StepModel::exchange_seconds(double tokens) const {
  const Layer* layer = first_with_experts(d_.model);
  double ranks = real(d_.layout.gpus() / d_.layout.pp), domain = real(std::max<int64_t>(1, d_.device.domain));
  double groups = real(d_.layout.moe_ep), parts = real(d_.layout.moe_tp), near = std::min(parts, domain);
  double meets = groups * (1 - std::pow(1 - 1 / groups, real(layer->ffn.top_k)));
  double row_bytes = 3 * real(d_.model.hidden) * tokens / real(d_.layout.tp);
  double remote = std::max(0.0, 1 - domain / ranks);
  double inside = row_bytes * meets * (near - remote) / link_rate_;
  double outside = remote > 0 ? row_bytes * meets * remote * parts / near / network_rate_ : 0;
  return 2 * d_.engine.exchange_s * (remote > 0 ? 2 : 1) + std::max(inside, outside);
}

StepBreakdown StepModel::breakdown(const StepLoad& load) const {
  StepBreakdown sum;
  for (const LayerKind& kind : kinds_) add_layer(kind, load, sum);
  add_head(load, sum);
  sum.fixed += d_.engine.step_s + d_.engine.sequence_s * (load.decode_sequences + load.prefill_sequences);
  double tokens = load.prefill_tokens + load.decode_sequences;
  if (d_.layout.pp > 1) {
    bool inside = d_.layout.gpus() <= d_.device.domain;
    double rate = inside ? link_rate_ : network_rate_;
    double send = d_.engine.reduce_s + 2 * real(d_.model.hidden) * tokens / rate;
    sum.pp += real(d_.layout.pp - 1) * send;
  }
  return sum;
}

std::vector<double> StepModel::context_bends() const {
  std::vector<double> bends = {0};
  for (const LayerKind& kind : kinds_) {
    const Mixer& mixer = kind.layer.mixer;
    int64_t entries = mixer.index_top_k * std::max<int64_t>(1, mixer.compress_ratio);
    for (int64_t bend : {mixer.window, entries})
      if (bend > 0) bends.push_back(real(bend));
  }
  std::sort(bends.begin(), bends.end());
  bends.erase(std::unique(bends.begin(), bends.end()), bends.end());
  return bends;
}

void StepModel::add_layer(const LayerKind& kind, const StepLoad& load, StepBreakdown& sum) const {
  double decode_rows = load.decode_sequences * real(1 + d_.speculation.depth);
  double tokens = load.prefill_tokens + decode_rows;
  double row_bytes = 2 * real(d_.model.hidden) * tokens;
  for (const Products& products : kind.products)
    sum.products += roofline(products.flops_per_token * tokens / products.rate, products.bytes / memory_rate_,
                             kind.count, sum);
  sum.elementwise += roofline(0, d_.engine.activations * row_bytes / memory_rate_, kind.count, sum);
  if (load.prefill_tokens > 0) {
    double pairs = attended_tokens(kind.layer.mixer, load.prefill_span);
    double flops = load.prefill_tokens * (kind.prefill_flops_per_pair * pairs + kind.state_flops);
    sum.attention += roofline(flops / attention_rate_, 0, kind.count, sum);
  }
  if (load.decode_sequences > 0) {
    double attended = load.decode_sequences * attended_tokens(kind.layer.mixer, load.decode_context);
    double flops = kind.cache_flops_per_token * attended * real(1 + d_.speculation.depth);
    double bytes = kind.cache_bytes_per_token * attended + kind.state_bytes * load.decode_sequences;
    sum.cache += roofline(flops / attention_rate_, bytes / cache_rate_, kind.count, sum);
  }
  sum.fixed += kind.count * d_.engine.layer_s;
  if (d_.layout.tp > 1) sum.tp += kind.count * reduce_seconds(row_bytes);
  bool reduces_ffn = d_.layout.tp > 1 && (!kind.has_experts || d_.layout.dp == 1);
  if (reduces_ffn && kind.layer.ffn.kind != FfnKind::none) sum.tp += kind.count * reduce_seconds(row_bytes);
  if (kind.has_experts) add_experts(kind, tokens, sum);
}

void StepModel::add_experts(const LayerKind& kind, double tokens, StepBreakdown& sum) const {
  double group_tokens = tokens * real(d_.layout.dp);
  double pairs = group_tokens * real(kind.layer.ffn.top_k) / real(d_.layout.moe_ep);
  double flops = pairs * experts_.imbalance(group_tokens) * kind.expert_flops;
  double touched = experts_.touched_per_rank(group_tokens), bytes = touched * kind.expert_bytes;
  // Grouped products end each expert's rows in a part of a tile; with many rows they are products like others.
  double rows = pairs / std::max(1.0, touched), full = rows / (rows + d_.engine.expert_rows);
  double rate = kind.expert_rate + full * (kind.full_expert_rate - kind.expert_rate);
  double memory_rate = memory_rate_ * d_.engine.expert_memory;
  sum.experts += roofline(flops / rate, bytes / memory_rate, kind.count, sum);
  sum.fixed += kind.count * d_.engine.expert_layer_s;
  if (d_.layout.dp > 1) sum.ep += kind.count * exchange_seconds(tokens);
}

void StepModel::add_head(const StepLoad& load, StepBreakdown& sum) const {
  double rows = load.prefill_sequences + load.decode_sequences * real(1 + d_.speculation.depth);
  if (rows == 0) return;
  sum.head += roofline(head_flops_ * rows / (d_.device.bf16 * d_.engine.compute), head_bytes_ / memory_rate_,
                       real(1 + d_.speculation.depth), sum);
}

}  // namespace tessera::plan::serving
