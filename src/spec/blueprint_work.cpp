#include <algorithm>

#include "core/numbers.h"
#include "spec/blueprint.h"

namespace tessera {
namespace {

// Mean over a sequence of `seq` of min(position, cap): the triangle, then the band.
double capped_mean(double seq, double cap) {
  if (cap <= 0 || cap >= seq) return seq / 2;
  return cap - cap * cap / (2 * seq);
}

// The smaller of the window and the sparse selection, 0: none.
double cap_of(const Mixer& mixer) {
  double cap = real(mixer.window);
  if (mixer.index_top_k > 0) cap = cap > 0 ? std::min(cap, real(mixer.index_top_k)) : real(mixer.index_top_k);
  return cap;
}

double history_entries(const Mixer& mixer, double seq) {
  if (mixer.compress_ratio == 0) return 0;
  double entries = seq / real(mixer.compress_ratio);
  return mixer.index_top_k > 0 ? std::min(entries, real(mixer.index_top_k)) : entries;
}

// The last linear pass of Mamba-2 in chunks costs 7 FLOPs per element of the state (Megatron-LM's count of
// hybrid models); the delta rule reads, corrects and reads again: three passes of 2.
double recurrence_flops(const Mixer& mixer) {
  if (mixer.kind == MixerKind::mamba2) return 7 * real(mixer.heads * mixer.v_head_dim * mixer.state);
  return 6 * real(mixer.heads * mixer.head_dim * mixer.v_head_dim);
}

double conv_channels(const Mixer& mixer) {
  if (mixer.kind == MixerKind::mamba2)
    return real(mixer.heads * mixer.v_head_dim + 2 * mixer.kv_heads * mixer.state);
  return real(2 * mixer.kv_heads * mixer.head_dim + mixer.heads * mixer.v_head_dim);
}

bool is_recurrent(const Mixer& mixer) {
  return mixer.kind == MixerKind::mamba2 || mixer.kind == MixerKind::linear_attention;
}

// Every key is scored by the indexer before the best are attended.
double indexer_flops(const Blueprint& model, const Mixer& mixer, int64_t seq, MaskFlops mask) {
  if (mixer.index_heads == 0 || !mixer.own_index) return 0;
  double keys = model.causal && mask == MaskFlops::credited ? real(seq) / 2 : real(seq);
  if (mixer.kind == MixerKind::compressed) keys /= real(mixer.compress_ratio);
  return 2 * real(mixer.index_heads * mixer.index_dim) * keys;
}

double cached_tokens(const Mixer& mixer, double tokens) {
  return mixer.window > 0 ? std::min(tokens, real(mixer.window)) : tokens;
}

}  // namespace

double attended_tokens(const Mixer& mixer, double seq) {
  if (mixer.kind == MixerKind::compressed) return cached_tokens(mixer, seq) + history_entries(mixer, seq);
  double cap = cap_of(mixer);
  return cap > 0 ? std::min(seq, cap) : seq;
}

double mean_attended_tokens(const Blueprint& model, const Mixer& mixer, int64_t seq, MaskFlops mask) {
  double length = real(seq);
  if (!model.causal || mask == MaskFlops::full) return attended_tokens(mixer, length);
  if (mixer.chunked && mixer.window > 0) return std::min(length, real(mixer.window)) / 2;
  if (mixer.kind != MixerKind::compressed) return capped_mean(length, cap_of(mixer));
  double ratio = real(mixer.compress_ratio);
  double history = ratio > 0 ? capped_mean(length / ratio, real(mixer.index_top_k)) : 0;
  return capped_mean(length, real(mixer.window)) + history;
}

double product_flops_per_token(const Blueprint& model, const Layer& layer) {
  double multiplies = 0;
  for (const Weight& weight : weights(model, layer))
    if (weight.is_product()) multiplies += real(weight.out * weight.in * weight.used);
  return 2 * multiplies;
}

double mixing_flops_per_token(const Blueprint& model, const Layer& layer, int64_t seq, MaskFlops mask) {
  const Mixer& mixer = layer.mixer;
  if (mixer.kind == MixerKind::none) return 0;
  if (is_recurrent(mixer)) return recurrence_flops(mixer) + 2 * conv_channels(mixer) * real(mixer.conv_kernel);
  double per_token = 2 * real(mixer.heads * (mixer.head_dim + mixer.v_head_dim));
  return per_token * mean_attended_tokens(model, mixer, seq, mask) + indexer_flops(model, mixer, seq, mask);
}

double forward_flops_per_token(const Blueprint& model, int64_t seq, MaskFlops mask) {
  double flops = 2 * real(model.vocab * model.hidden);
  std::vector<double> of_kind;
  for (const Layer& layer : model.kinds)
    of_kind.push_back(product_flops_per_token(model, layer) + mixing_flops_per_token(model, layer, seq, mask));
  for (int32_t kind : model.order) flops += of_kind[static_cast<size_t>(kind)];
  return flops;
}

double cache_elements_per_token(const Mixer& mixer) {
  double index = mixer.own_index && mixer.index_heads > 0 ? real(mixer.index_dim) : 0;
  switch (mixer.kind) {
    case MixerKind::attention:
      return mixer.own_kv ? real(mixer.kv_heads * (mixer.head_dim + mixer.v_head_dim)) + index : 0;
    case MixerKind::mla:
      return real(mixer.kv_rank + mixer.rope_dim) + index;
    case MixerKind::compressed:  // what stays when the window has passed
      return mixer.compress_ratio > 0 ? (real(mixer.head_dim) + index) / real(mixer.compress_ratio) : 0;
    default:
      return 0;
  }
}

double state_elements(const Mixer& mixer) {
  if (!is_recurrent(mixer)) return 0;
  double inner = mixer.kind == MixerKind::mamba2 ? real(mixer.state) : real(mixer.head_dim);
  return real(mixer.heads * mixer.v_head_dim) * inner + conv_channels(mixer) * real(mixer.conv_kernel - 1);
}

double cache_bytes(const Blueprint& model, int64_t tokens, double bytes_per_element, double state_bytes) {
  std::vector<double> of_kind;
  for (const Layer& layer : model.kinds) {
    const Mixer& mixer = layer.mixer;
    double elements = cache_elements_per_token(mixer) * cached_tokens(mixer, real(tokens));
    if (mixer.kind == MixerKind::compressed)
      elements = cache_elements_per_token(mixer) * real(tokens) +
                 real(mixer.head_dim) * cached_tokens(mixer, real(tokens));
    of_kind.push_back(elements * bytes_per_element + state_elements(mixer) * state_bytes);
  }
  double bytes = 0;
  for (int32_t kind : model.order) bytes += of_kind[static_cast<size_t>(kind)];
  return bytes;
}

double cache_bytes_per_token(const Blueprint& model, double bytes_per_element) {
  double elements = 0;
  for (int32_t kind : model.order)
    elements += cache_elements_per_token(model.kinds[static_cast<size_t>(kind)].mixer);
  return elements * bytes_per_element;
}

}  // namespace tessera
