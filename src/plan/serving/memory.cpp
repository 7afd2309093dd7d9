#include "plan/serving/memory.h"

#include <algorithm>
#include <cmath>

#include "core/numbers.h"

namespace tessera::plan::serving {
namespace {

// Of the memory that weights and cache can have at all: the rest is the context of the device.
constexpr double kLargestShare = 0.99;

double shard_bytes(const Deployment& d, const Weight& weight) {
  double elements = real(weight.elements());
  if (weight.part == Part::experts)
    return elements * bytes_per_weight(d.formats.experts) / real(d.layout.moe_tp * d.layout.moe_ep);
  double ways = weight.split == Split::none ? 1 : real(d.layout.tp);
  // With attention-DP, parts without attention are shared by all ranks where the experts are.
  bool wide = d.layout.moe_tp > 1 && (weight.part == Part::shared_experts || weight.part == Part::head);
  if (wide && weight.split != Split::none) ways *= real(d.layout.dp);
  if (weight.max_split > 0) ways = std::min(ways, real(weight.max_split));
  bool quantised = weight.is_product() && weight.part != Part::router && weight.part != Part::head;
  WeightFormat format = weight.part == Part::attention ? d.formats.attention : d.formats.ffn;
  return elements * (quantised ? bytes_per_weight(format) : 2) / ways;
}

double real_count(const Blueprint& model, size_t kind) {
  return real(std::count(model.order.begin(), model.order.end(), static_cast<int32_t>(kind)));
}

}  // namespace

double rank_weight_bytes(const Deployment& d) {
  double layers = 0, ends = 0;
  for (size_t kind = 0; kind < d.model.kinds.size(); ++kind)
    for (const Weight& weight : weights(d.model, d.model.kinds[kind]))
      layers += real_count(d.model, kind) * shard_bytes(d, weight);
  for (const Weight& weight : outer_weights(d.model))
    if (weight.stored) ends += shard_bytes(d, weight);
  // With pipeline stages the embedding and the head lie apart.
  return layers / real(d.layout.pp) + (d.layout.pp > 1 ? ends / 2 : ends);
}

RankMemory rank_memory(const Deployment& d) {
  RankMemory memory;
  memory.total = d.device.memory_bytes;
  memory.weights = rank_weight_bytes(d);
  memory.workspace = d.engine.workspace_bytes;
  double left = memory.total - memory.weights;
  if (!d.engine.share_of_free) left -= memory.total * (1 - d.engine.memory_share);
  // Where the usual share does not do, users raise it and shrink the buffers: engines run until little is left.
  left = std::max(left, (kLargestShare * memory.total - memory.weights) / 2);
  memory.workspace = std::min(memory.workspace, std::max(0.0, left / 2));
  memory.cache = left - memory.workspace;
  if (d.engine.share_of_free) memory.cache *= d.engine.memory_share;
  return memory;
}

double sequence_bytes(const Deployment& d, double tokens) {
  double bytes = 0;
  for (size_t kind = 0; kind < d.model.kinds.size(); ++kind) {
    const Mixer& mixer = d.model.kinds[kind].mixer;
    double held = mixer.window > 0 ? std::min(tokens, real(mixer.window)) : tokens;
    double cache = cache_elements_per_token(mixer) * held * d.formats.kv_bytes;
    if (mixer.kind == MixerKind::attention) cache /= real(std::min(d.layout.tp, mixer.kv_heads));
    bytes += real_count(d.model, kind) * (cache + 4 * state_elements(mixer) / real(d.layout.tp));
  }
  return bytes / real(d.layout.pp);
}

double max_sequences(const Deployment& d, double tokens) {
  double cache = std::max(0.0, rank_memory(d).cache);
  double bytes = sequence_bytes(d, tokens);
  double fit = bytes > 0 ? std::floor(cache / bytes) : d.engine.max_running;
  return std::min(fit, d.engine.max_running);
}

}  // namespace tessera::plan::serving
