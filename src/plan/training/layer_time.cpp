#include "plan/training/layer_time.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/numbers.h"

namespace tessera::plan {
namespace {

MathFormat format_of(TrainingPrecision precision) {
  switch (precision) {
    case TrainingPrecision::float32:
      return MathFormat::tf32;
    case TrainingPrecision::fp16:
    case TrainingPrecision::bf16:
      return MathFormat::bf16;
    case TrainingPrecision::fp8:
    case TrainingPrecision::fp8_block:
    case TrainingPrecision::mxfp8:
      return MathFormat::fp8;
    case TrainingPrecision::nvfp4:
      return MathFormat::fp4;
  }
  return MathFormat::bf16;
}

constexpr double kActivationBytes = 2, kFloatBytes = 4;
constexpr double kScanPasses = 2;

bool is_sequence_mixer(const Mixer& mixer) {
  return mixer.kind == MixerKind::attention || mixer.kind == MixerKind::mla ||
         mixer.kind == MixerKind::compressed;
}

bool is_recurrent(const Mixer& mixer) {
  return mixer.kind == MixerKind::mamba2 || mixer.kind == MixerKind::linear_attention;
}

// Share of a full square that a chunked or windowed causal mask leaves, as a window for the kernels.
double kernel_window(const Mixer& mixer, double seq) {
  double window = real(mixer.window);
  if (mixer.index_top_k > 0)
    window = window > 0 ? std::min(window, real(mixer.index_top_k)) : real(mixer.index_top_k);
  if (mixer.chunked && window > 0) window /= 2;
  return window > 0 && window < seq ? window : 0;
}

// Flash kernels reached a new generation of devices a year or two after the devices.
double attention_rate(const Device& device, const SoftwareGeneration& software) {
  bool early = device.generation == "ampere" || device.generation == "ada" || software.attention_hopper == 0;
  return early ? software.attention : software.attention_hopper;
}

}  // namespace

LayerTime& LayerTime::operator+=(const LayerTime& other) {
  products += other.products, experts += other.experts, attention += other.attention;
  pointwise += other.pointwise, tp += other.tp, cp += other.cp, ep += other.ep, host += other.host;
  return *this;
}

LayerModel::LayerModel(const TrainingSetup& setup, const GpuCluster& cluster,
                       const SoftwareGeneration& software)
    : setup_(setup),
      cluster_(cluster),
      software_(software),
      kernels_(cluster),
      format_(format_of(setup.work.precision)),
      tokens_(real(setup.layout.micro_batch * setup.work.seq) / real(setup.layout.cp)) {}

double LayerModel::boundary_bytes() const {
  // Megatron sends each tensor-parallel rank's part of an activation that all of them hold, and gathers it on
  // the other side (Narayanan et al. 2021, section 4.1).
  bool parts = setup_.layout.sequence_parallel || setup_.options.framework == Framework::megatron;
  double split = parts ? real(setup_.layout.tp) : 1;
  return tokens_ * real(setup_.model.hidden) * kActivationBytes / split;
}

// Recipes keep router and head in 16 bits; NVFP4 recipes keep attention's products in 8.
MathFormat LayerModel::math(const Weight& weight) const {
  if (weight.part == Part::router || weight.part == Part::head)
    return format_ == MathFormat::tf32 ? format_ : MathFormat::bf16;
  return format_;
}

// One product forward, or both products of its backward.
double LayerModel::product_s(const Weight& weight, double out, bool backward) const {
  const TrainingLayout& layout = setup_.layout;
  double in = real(weight.in);
  if (weight.split == Split::dim0 || weight.split == Split::vocab)
    out /= real(layout.tp);
  else if (weight.split == Split::dim1)
    in /= real(layout.tp);
  // A weight that every rank holds whole works on the rank's own tokens when they are split.
  double rows = tokens_;
  if (weight.split == Split::none && layout.sequence_parallel) rows /= real(layout.tp);
  MathFormat format = math(weight);
  double copies = real(weight.used);
  double seconds = 0;
  if (!backward) {
    seconds = kernels_.gemm_s({.m = rows, .n = out, .k = in, .format = format});
  } else {
    // NVFP4 recipes compute gradients of weights in a wider format than their inputs'.
    double result_bytes = real(setup_.options.gradient_bytes);
    seconds = kernels_.gemm_s({.m = rows, .n = in, .k = out, .format = format}) +
              kernels_.gemm_s({.m = out,
                               .n = in,
                               .k = rows,
                               .format = format,
                               .output_bytes = result_bytes,
                               .accumulates = true});
  }
  return seconds * copies / software_.products;
}

void LayerModel::add_products(const Layer& layer, LayerTimes& times) const {
  auto list = weights(setup_.model, layer);
  for (size_t i = 0; i < list.size(); ++i) {
    const Weight& weight = list[i];
    double split = weight.split == Split::none ? 1 : real(setup_.layout.tp);
    if (weight.part != Part::experts) times.parameters += real(weight.elements()) / split;
    if (!weight.is_product() || weight.part == Part::experts) continue;
    bool first = i == 0 || std::strcmp(list[i - 1].product, weight.product) != 0;
    if (!first) continue;
    double out = 0;
    for (size_t j = i; j < list.size() && std::strcmp(list[j].product, weight.product) == 0; ++j)
      out += real(list[j].out);
    times.forward.products += product_s(weight, out, false);
    times.backward.products += product_s(weight, out, true);
  }
}

// Rows that a rank's experts work on: its share of all token copies of the expert group.
void LayerModel::add_experts(const Layer& layer, LayerTimes& times) const {
  const Ffn& ffn = layer.ffn;
  if (ffn.kind != FfnKind::moe) return;
  const TrainingLayout& layout = setup_.layout;
  double etp = real(layout.expert_tp());
  double experts = real(ffn.experts) / real(layout.ep);
  double rows = tokens_ * real(ffn.top_k) * etp / real(layout.tp) * setup_.options.expert_imbalance;
  double hidden = real(ffn.expert_hidden > 0 ? ffn.expert_hidden : setup_.model.hidden);
  double width = real(ffn.expert_width) / etp, up = width * (ffn.gated ? 2 : 1);
  auto grouped = [&](double n, double k, bool weights_gradient) {
    return kernels_.grouped_gemm_s({.groups = experts,
                                    .rows = rows,
                                    .n = n,
                                    .k = k,
                                    .format = format_,
                                    .output_bytes = weights_gradient ? real(setup_.options.gradient_bytes) : 2,
                                    .accumulates = weights_gradient}) /
           (software_.grouped * software_.products);
  };
  times.forward.experts += grouped(up, hidden, false) + grouped(hidden, width, false);
  times.backward.experts += grouped(hidden, up, false) + grouped(width, hidden, false) +
                            grouped(up, hidden, true) + grouped(hidden, width, true);
  times.expert_parameters += experts * hidden * (up + width);
}

void LayerModel::add_flash_attention(const Layer& layer, LayerTimes& times) const {
  const Mixer& mixer = layer.mixer;
  double seq = real(setup_.work.seq), cp = real(setup_.layout.cp), tp = real(setup_.layout.tp);
  // Context parallelism shares the queries so that each rank sees the same number of pairs: a rank's work is
  // that of seq / cp queries against the whole sequence, half of it masked.
  AttentionShape shape{.batch = real(setup_.layout.micro_batch),
                       .heads = real(mixer.heads) / tp,
                       .kv_heads = std::max(1.0, real(mixer.kv_heads) / tp),
                       .q_len = seq,
                       .kv_len = seq,
                       .head_dim = real(mixer.head_dim),
                       .v_head_dim = real(mixer.v_head_dim),
                       .causal = setup_.model.causal,
                       .window = kernel_window(mixer, seq),
                       .rate_factor = attention_rate(cluster_.device, software_)};
  double slowdown = cp > 1 ? software_.cp_slowdown : 1;
  times.forward.attention += slowdown * kernels_.attention_s(shape) / cp;
  shape.backward = true;
  times.backward.attention += slowdown * kernels_.attention_s(shape) / cp;
}

// Before flash kernels the whole square of scores is multiplied, masked, normalised and dropped out in memory
// (Megatron-LM until 2022): 2 bytes a score, written by one kernel and read by the next. Fused scale, mask and
// softmax count as one pass.
void LayerModel::add_plain_attention(const Layer& layer, LayerTimes& times) const {
  const Mixer& mixer = layer.mixer;
  double seq = real(setup_.work.seq), heads = real(mixer.heads) / real(setup_.layout.tp);
  double batch = real(setup_.layout.micro_batch) * heads / real(setup_.layout.cp);
  double scores = batch * seq * seq;
  double product =
      kernels_.grouped_gemm_s({.groups = batch, .rows = batch * seq, .n = seq, .k = real(mixer.head_dim)}) +
      kernels_.grouped_gemm_s({.groups = batch, .rows = batch * seq, .n = real(mixer.v_head_dim), .k = seq});
  double forward_bytes = setup_.options.dropout ? 4 + 5 : 4, backward_bytes = forward_bytes + 2;
  times.forward.attention += product + kernels_.memory_s(scores * forward_bytes, 2);
  times.backward.attention += 2 * product + kernels_.memory_s(scores * backward_bytes, 2);
}

// A convolution, a step size and a chunked scan in four kernels (chunk sums, chunk states, their passing, the
// scan): inputs and states pass through memory in float32 between them.
void LayerModel::add_recurrence(const Layer& layer, LayerTimes& times) const {
  const Mixer& mixer = layer.mixer;
  double channels = real(mixer.heads * mixer.v_head_dim);
  double keys = real(mixer.kv_heads * (mixer.state > 0 ? mixer.state : mixer.head_dim)) * 2;
  double elements = tokens_ * (channels * 4 + keys * 2) / real(setup_.layout.tp);
  double flops = tokens_ * mixing_flops_per_token(setup_.model, layer, setup_.work.seq, MaskFlops::credited) /
                 real(setup_.layout.tp);
  // Matrix form inside chunks of 128 costs about twice the recurrence and runs far below a large product.
  double math = 2 * flops / (cluster_.device.peak_bf16 * 0.1);
  double seconds = kernels_.memory_s(elements * kFloatBytes * kScanPasses * software_.pointwise, 6) + math;
  times.forward.attention += seconds;
  times.backward.attention += 2.5 * seconds;
}

void LayerModel::add_mixing(const Layer& layer, LayerTimes& times) const {
  if (is_recurrent(layer.mixer)) return add_recurrence(layer, times);
  if (!is_sequence_mixer(layer.mixer)) return;
  if (setup_.options.flash_attention) return add_flash_attention(layer, times);
  add_plain_attention(layer, times);
}

// Bytes of one pass over activations, fully fused: per norm read x and residual, write both; gated activation
// reads two and writes one; rotary reads and writes q and k; experts' rows are gathered, scattered and
// weighted. Backward reads the saved input too: half as much again (Korthikanti et al. 2022, table 4: backward
// of a layer takes 1.55 times its forward, products included).
void LayerModel::add_pointwise(const Layer& layer, LayerTimes& times) const {
  const TrainingLayout& layout = setup_.layout;
  double tp = real(layout.tp), hidden = real(setup_.model.hidden);
  double own_tokens = layout.sequence_parallel ? tokens_ / tp : tokens_;
  double bytes = own_tokens * hidden * kActivationBytes * 4 * real(layer.norms);
  if (setup_.options.dropout) bytes += own_tokens * hidden * 2 * 3;
  // Hyper-connections read and write every residual stream around both parts of a block.
  if (layer.residual_streams > 1)
    bytes += own_tokens * hidden * kActivationBytes * 4 * real(layer.residual_streams);
  double kernels = 2 * real(layer.norms);
  const Mixer& mixer = layer.mixer;
  if (is_sequence_mixer(mixer)) {
    double qk = real(mixer.heads * mixer.head_dim + mixer.kv_heads * mixer.head_dim) / tp;
    bytes += tokens_ * qk * kActivationBytes * 2;
    kernels += 2;
  }
  const Ffn& ffn = layer.ffn;
  double streams = ffn.gated ? 3 : 2;
  if (ffn.kind == FfnKind::dense) bytes += tokens_ * real(ffn.width) / tp * kActivationBytes * streams;
  if (ffn.kind == FfnKind::moe) {
    double rows = tokens_ * real(ffn.top_k) / tp * setup_.options.expert_imbalance;
    double latent = real(ffn.expert_hidden > 0 ? ffn.expert_hidden : setup_.model.hidden);
    bytes += rows * real(ffn.expert_width) * kActivationBytes * streams;
    bytes += rows * latent * kActivationBytes * 5;
    // Biases of experts are passes of their own: grouped products have no epilogue for them.
    if (ffn.biases)
      bytes += rows * (real(ffn.expert_width) * (ffn.gated ? 2 : 1) + latent) * kActivationBytes * 2;
    bytes += tokens_ / tp * real(ffn.experts) * 4 * 4;
    bytes += tokens_ * real(ffn.shared_width) / tp * kActivationBytes * streams;
    kernels += 12;
  }
  times.forward.pointwise += kernels_.memory_s(bytes * software_.pointwise, kernels);
  times.backward.pointwise += kernels_.memory_s(1.5 * bytes * software_.pointwise, 2 * kernels);
}

// Products in 8 or 4 bits read 16-bit tensors and write them quantised in both orders. A scale from the tensor
// itself needs a pass before; NVFP4 turns blocks by a Hadamard matrix on the way.
double cast_read_bytes(const TrainingSetup& setup) {
  if (setup.work.precision == TrainingPrecision::nvfp4) return 4;
  bool delayed = setup.options.release_year < 2025;
  return setup.work.precision == TrainingPrecision::fp8 && !delayed ? 4 : 2;
}

void LayerModel::add_casts(const Layer& layer, LayerTimes& times) const {
  if (format_ != MathFormat::fp8 && format_ != MathFormat::fp4) return;
  const TrainingLayout& layout = setup_.layout;
  double tp = real(layout.tp), forward = 0, backward = 0;
  double moved = cast_read_bytes(setup_) + 2 * bytes_per_element(format_);
  for (const Weight& weight : weights(setup_.model, layer)) {
    if (!weight.is_product() || math(weight) != format_) continue;
    bool routed = weight.part == Part::experts;
    double rows = routed ? tokens_ * real(weight.used) / tp : tokens_;
    double in = real(weight.in), out = real(weight.out);
    if (!routed && weight.split == Split::dim1) in /= tp;
    if (!routed && weight.split == Split::dim0) out /= tp;
    // Weights that share their input share its cast; k, v and up are read as parts of q and gate.
    bool shares = std::strcmp(weight.name, "k") == 0 || std::strcmp(weight.name, "v") == 0 ||
                  std::strcmp(weight.name, "up") == 0;
    if (!shares) forward += rows * in * moved;
    backward += rows * out * moved;
  }
  times.forward.pointwise += kernels_.memory_s(forward * software_.pointwise, 4);
  times.backward.pointwise += kernels_.memory_s(backward * software_.pointwise, 4);
}

// Megatron's f and g: an all-reduce each around attention and around the dense part, or a gather and a scatter
// with sequence parallelism. Experts under their own split take part only when that split is tensor-parallel.
void LayerModel::add_tensor_parallel(const Layer& layer, LayerTimes& times) const {
  const TrainingLayout& layout = setup_.layout;
  if (layout.tp == 1) return;
  RankGroup group{.ranks = layout.tp};
  double bytes = tokens_ * real(setup_.model.hidden) * kActivationBytes;
  double regions = 0;
  if (layer.mixer.kind != MixerKind::none) regions += 1;
  bool dense = layer.ffn.kind == FfnKind::dense, shared = layer.ffn.shared_width > 0;
  bool split_experts = layer.ffn.kind == FfnKind::moe && layout.expert_tp() > 1;
  if (dense || shared || split_experts) regions += 1;
  // One norm feeds both parts of a parallel block (GPT-J, PaLM, Cohere): their results are summed before they
  // are reduced.
  if (layer.norms == 1) regions = std::min(regions, 1.0);
  double once = layout.sequence_parallel
                    ? collective_s(cluster_, CollectiveKind::all_gather, group, bytes) +
                          collective_s(cluster_, CollectiveKind::reduce_scatter, group, bytes)
                    : collective_s(cluster_, CollectiveKind::all_reduce, group, bytes);
  times.forward.tp += regions * once;
  times.backward.tp += regions * once;
}

// Ring attention: keys and values of the other ranks arrive block by block; backward sends their gradients too.
void LayerModel::add_context_parallel(const Layer& layer, LayerTimes& times) const {
  const TrainingLayout& layout = setup_.layout;
  const Mixer& mixer = layer.mixer;
  if (layout.cp == 1 || !is_sequence_mixer(mixer)) return;
  RankGroup group{.ranks = layout.cp, .stride = layout.tp};
  double kv = std::max(1.0, real(mixer.kv_heads) / real(layout.tp));
  double block = tokens_ * kv * real(mixer.head_dim + mixer.v_head_dim) * kActivationBytes;
  double ring = collective_s(cluster_, CollectiveKind::all_gather, group, block * real(layout.cp));
  times.forward.cp += ring;
  times.backward.cp += 2 * ring;
}

// Dispatch sends every token to its experts' ranks, combine brings the results back. Libraries that send one
// copy per host and spread it inside (DeepEP, HybridEP) need the network only once per host.
void LayerModel::add_expert_parallel(const Layer& layer, LayerTimes& times) const {
  const TrainingLayout& layout = setup_.layout;
  const Ffn& ffn = layer.ffn;
  if (layout.ep == 1 || ffn.kind != FfnKind::moe) return;
  RankGroup group{.ranks = layout.ep, .stride = layout.expert_tp()};
  double hidden = real(ffn.expert_hidden > 0 ? ffn.expert_hidden : setup_.model.hidden);
  double row = tokens_ / real(layout.tp) * hidden * kActivationBytes, copies = real(ffn.top_k);
  double inside = members_in_domain(cluster_, group, 0), domains = std::ceil(real(layout.ep) / inside);
  double once = collective_s(cluster_, CollectiveKind::all_to_all, group, row * copies);
  if (domains > 1 && software_.dedupe > 0) {
    // Domains that hold at least one of the chosen experts, all equally likely.
    double crossing = domains * (1 - std::pow(1 - 1 / domains, copies));
    double outside = collective_s(cluster_, CollectiveKind::all_to_all, group, row * crossing);
    RankGroup neighbours{.ranks = static_cast<int64_t>(inside), .stride = group.stride};
    double spread = collective_s(cluster_, CollectiveKind::all_to_all, neighbours, row * copies);
    once = std::min(once, std::max(outside, spread));
  }
  times.forward.ep += 2 * once;
  times.backward.ep += 2 * once;
}

void LayerModel::add_host(const Layer& layer, LayerTimes& times) const {
  double graphs = setup_.options.cuda_graphs ? 0.3 : 1;
  // Hybrid models list mixers and feed-forward parts as layers of their own: half of a block each.
  bool half = layer.mixer.kind == MixerKind::none || layer.ffn.kind == FfnKind::none;
  double seconds = software_.host_layer_s * (half ? 0.5 : 1);
  if (layer.ffn.kind == FfnKind::moe) seconds += software_.host_experts_s;
  if (is_8_bit_or_less(setup_.work.precision)) seconds *= software_.narrow_host;
  times.forward.host += graphs * seconds;
  times.backward.host += graphs * 1.5 * seconds;
}

double recomputed_share(const TrainingSetup& setup) {
  const Recomputation& again = setup.layout.recompute;
  switch (again.full) {
    case Recomputation::Full::none:
      return 0;
    case Recomputation::Full::all:
      return 1;
    case Recomputation::Full::every:
      return 1 / real(std::max<int64_t>(1, again.layers));
    case Recomputation::Full::first:
      return std::min(1.0,
                      real(again.layers) * real(setup.layout.pp * setup.chunks()) / real(setup.model.layers()));
  }
  return 0;
}

// Backward runs again what was not kept.
void add_recomputation(const TrainingSetup& setup, const Layer& layer, LayerTimes& times) {
  const Recomputation& again = setup.layout.recompute;
  LayerTime& backward = times.backward;
  const LayerTime& forward = times.forward;
  double share = recomputed_share(setup);
  LayerTime extra = forward;
  backward.products += share * extra.products, backward.experts += share * extra.experts;
  backward.attention += share * extra.attention, backward.pointwise += share * extra.pointwise;
  backward.tp += share * extra.tp, backward.ep += share * extra.ep, backward.cp += share * extra.cp;
  backward.host += share * extra.host;
  double rest = 1 - share;
  if (again.core_attention) backward.attention += rest * forward.attention;
  if (again.norm || again.cheap_ops) backward.pointwise += rest * 0.5 * forward.pointwise;
  if (again.moe_act) backward.pointwise += rest * 0.2 * forward.pointwise;
  if (again.moe) backward.experts += rest * forward.experts, backward.ep += rest * forward.ep;
  if (again.mlp && layer.ffn.kind == FfnKind::dense) backward.products += rest * 0.6 * forward.products;
  if (again.mla_up && layer.mixer.kind == MixerKind::mla) backward.products += rest * 0.3 * forward.products;
}

LayerTimes LayerModel::layer(const Layer& layer) const {
  LayerTimes times = kept(layer);
  add_recomputation(setup_, layer, times);
  return times;
}

LayerTimes LayerModel::kept(const Layer& layer) const {
  LayerTimes times;
  add_products(layer, times);
  add_experts(layer, times);
  add_mixing(layer, times);
  add_pointwise(layer, times);
  add_casts(layer, times);
  add_tensor_parallel(layer, times);
  add_context_parallel(layer, times);
  add_expert_parallel(layer, times);
  add_host(layer, times);
  return times;
}

LayerTimes LayerModel::head() const {
  LayerTimes times;
  double tp = real(setup_.layout.tp);
  for (const Weight& weight : outer_weights(setup_.model)) {
    if (weight.part == Part::head && weight.elements() > 0) times.parameters += real(weight.elements()) / tp;
    if (!weight.is_product()) continue;
    times.forward.products += product_s(weight, real(weight.out), false);
    times.backward.products += product_s(weight, real(weight.out), true);
  }
  // Loss in float32: maximum, exponentials, sum; a fused loss reads the 16-bit logits only.
  double logits = tokens_ * real(setup_.model.vocab) / tp;
  times.forward.pointwise += kernels_.memory_s(logits * (setup_.options.fused_loss ? 6 : 18), 4);
  times.backward.pointwise += kernels_.memory_s(logits * (setup_.options.fused_loss ? 4 : 12), 2);
  times.forward.host = times.backward.host = 5e-4;
  return times;
}

LayerTimes LayerModel::embedding() const {
  LayerTimes times;
  double tp = real(setup_.layout.tp), hidden = real(setup_.model.hidden);
  for (const Weight& weight : outer_weights(setup_.model))
    if (weight.part == Part::embedding) times.parameters += real(weight.elements()) / tp;
  double bytes = tokens_ * hidden * kActivationBytes;
  times.forward.pointwise += kernels_.memory_s(3 * bytes, 3);
  times.backward.pointwise += kernels_.memory_s(6 * bytes, 3);
  if (setup_.layout.tp > 1)
    times.forward.tp += collective_s(cluster_, CollectiveKind::all_reduce, {.ranks = setup_.layout.tp}, bytes);
  times.forward.host = times.backward.host = 3e-4;
  return times;
}

}  // namespace tessera::plan
