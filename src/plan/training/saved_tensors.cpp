#include "plan/training/saved_tensors.h"

#include <algorithm>

#include "core/numbers.h"

namespace tessera::plan {
namespace {

// Rows of one layer; sizes in elements per token.
struct Rows {
  const TrainingSetup& setup;
  std::vector<SavedTensor> out;
  double tokens = token_share(setup), tp = real(setup.layout.tp);
  double sp = setup.layout.sequence_parallel ? tp : 1;
  double element = element_bytes(setup);
  // Transformer Engine keeps the quantised copy of a product's input; others keep the 16-bit one.
  double product_input =
      is_8_bit_or_less(setup.work.precision) && setup.options.framework == Framework::megatron ? 1 : element;
  double expert_activation = setup.options.narrow_activations ? 1 : element;

  void add(const char* name, double bytes, bool dropped = false) {
    if (bytes > 0) out.push_back({name, bytes, dropped});
  }
  void sequence(const char* name, double per_token, bool dropped = false) {
    add(name, per_token * tokens / sp, dropped);
  }
  void split(const char* name, double per_token, bool dropped = false) {
    add(name, per_token * tokens / tp, dropped);
  }
};

bool has_qk_norm(const Mixer& m) {
  return m.vectors >= 2 * m.head_dim;
}

// The norm in front of a mixer or FFN: its input, and its output as the input of the first product.
// torchtitan's per-op mode (`cheap_ops`) keeps every second product's result, flash attention's, and the
// block's input.
void add_norm(const char* input, const char* output, Rows& r) {
  const Recomputation& re = r.setup.layout.recompute;
  double hidden = real(r.setup.model.hidden);
  r.sequence(input, r.element * hidden);
  r.sequence(output, r.product_input * hidden, re.norm || re.cheap_ops);
}

void add_scores(const Mixer& m, Rows& r) {
  const TrainingOptions& options = r.setup.options;
  bool dropped = r.setup.layout.recompute.core_attention;
  if (options.flash_attention) return r.split("softmax statistics", 4 * real(m.heads), dropped);
  double scores = real(m.heads * r.setup.work.seq);
  r.split("softmax", r.element * scores, dropped);
  if (!options.dropout) return;
  r.split("attention dropout mask", scores, dropped);
  r.split("attention dropout", r.element * scores, dropped);
}

// Result of attention and input of the output projection: one tensor unless products read a quantised copy.
void add_result(double width, Rows& r) {
  if (r.setup.options.narrow_activations) return r.split("attention result", 1.5 * width);
  r.split("attention result", r.element * width);
  if (r.product_input < r.element) r.split("projection input", r.product_input * width);
  if (r.setup.options.dropout) r.sequence("attention residual mask", real(r.setup.model.hidden));
}

void add_attention(const Mixer& m, Rows& r) {
  double q = real(m.heads * m.head_dim), k = real(m.kv_heads * m.head_dim), v = real(m.kv_heads * m.v_head_dim);
  double copies = std::max(1.0, r.tp / real(m.kv_heads));  // tp beyond the KV heads repeats them
  r.split("q", r.element * q);
  r.split("k", r.element * k * copies, r.setup.layout.recompute.cheap_ops);
  r.split("v", r.element * v * copies);
  if (m.output_gate) r.split("output gate", 2 * r.element * q);
  if (has_qk_norm(m)) r.split("q and k before their norm", r.element * (q + k * copies));
  add_scores(m, r);
  add_result(real(m.heads * m.v_head_dim), r);
}

void add_mla(const Mixer& m, Rows& r) {
  bool up = r.setup.layout.recompute.mla_up;
  r.sequence("q latent", 2 * r.element * real(m.q_rank));  // before and after its norm
  r.sequence("kv latent", r.element * real(2 * m.kv_rank + m.rope_dim));
  double q = real(m.heads * m.head_dim), v = real(m.heads * m.v_head_dim);
  r.split("q", r.element * q, up);
  r.split("k", r.element * q, up);
  r.split("v", r.element * v, up);
  add_scores(m, r);
  add_result(v, r);
}

void add_compressed(const Mixer& m, Rows& r) {
  double q = real(m.heads * m.head_dim);
  r.sequence("q latent", 2 * r.element * real(m.q_rank));
  r.sequence("kv", 2 * r.element * real(m.head_dim));
  r.split("q", r.element * q);
  add_scores(m, r);
  add_result(q, r);
  r.split("output latent", r.element * real(m.out_groups * m.out_rank));
}

// Inputs of the convolution, of the recurrence and of the gate, and a state per chunk of tokens.
void add_recurrent(const Mixer& m, Rows& r) {
  constexpr double kChunk = 128;
  double values = real(m.heads * m.v_head_dim);
  double state = m.kind == MixerKind::mamba2 ? real(m.state) : real(m.head_dim);
  double mixed = values + 2 * real(m.kv_heads) * state;
  r.split("recurrence inputs", 2 * r.element * mixed);
  r.split("states", r.element * values * state / kChunk);
  r.split("gate", r.element * values);
  r.split("recurrence result", 2 * r.element * values);
}

void add_mixer(const Mixer& m, Rows& r) {
  if (m.kind == MixerKind::none) return;
  add_norm("mixer norm input", "mixer input", r);
  switch (m.kind) {
    case MixerKind::attention:
      return add_attention(m, r);
    case MixerKind::mla:
      return add_mla(m, r);
    case MixerKind::compressed:
      return add_compressed(m, r);
    default:
      return add_recurrent(m, r);
  }
}

void add_dense(const Ffn& f, Rows& r) {
  const Recomputation& re = r.setup.layout.recompute;
  double width = real(f.width), inputs = f.gated ? 2 : 1;
  add_norm("ffn norm input", "ffn input", r);
  r.split("gate or up", r.element * width, re.mlp);
  r.split("up beside gate", r.element * (inputs - 1) * width, re.mlp || re.cheap_ops);
  if (f.gated && !r.setup.options.fused_gated_act)
    r.split("activated gate", r.element * width, re.mlp || re.cheap_ops);
  r.split("down input", r.product_input * width, re.mlp || re.cheap_ops);
  if (r.setup.options.dropout) r.sequence("ffn residual mask", real(r.setup.model.hidden));
}

void add_shared_experts(const Ffn& f, Rows& r) {
  const Recomputation& re = r.setup.layout.recompute;
  bool dropped = re.moe || re.shared_experts;
  double width = real(f.shared_width);
  r.split("shared activation input", r.expert_activation * (f.shared_gated ? 2 : 1) * width, dropped);
  r.split("shared down input", r.product_input * width, dropped || re.cheap_ops);
}

void add_moe(const Ffn& f, Rows& r) {
  const Recomputation& re = r.setup.layout.recompute;
  double rows = expert_rows(r.setup, f), etp = real(r.setup.layout.expert_tp());
  double inner = real(f.expert_hidden > 0 ? f.expert_hidden : r.setup.model.hidden),
         width = real(f.expert_width);
  add_norm("ffn norm input", "ffn input", r);
  r.sequence("router", 2 * 4 * real(f.experts), re.moe);  // logits and probabilities in float32
  r.add("expert input", r.product_input * inner * rows, re.moe);
  r.add("expert activation input", r.expert_activation * (f.gated ? 2 : 1) * width / etp * rows, re.moe);
  r.add("expert down input", r.product_input * width / etp * rows, re.moe || re.moe_act || re.cheap_ops);
  add_shared_experts(f, r);
}

}  // namespace

double token_share(const TrainingSetup& setup) {
  return real(setup.micro_batch_tokens()) / real(setup.layout.cp);
}
double element_bytes(const TrainingSetup& setup) {
  return setup.work.precision == TrainingPrecision::float32 ? 4 : 2;
}
double hidden_bytes(const TrainingSetup& setup) {
  return element_bytes(setup) * real(setup.model.hidden) * token_share(setup);
}
double hidden_shard_bytes(const TrainingSetup& setup) {
  return hidden_bytes(setup) / (setup.layout.sequence_parallel ? real(setup.layout.tp) : 1);
}
double expert_rows(const TrainingSetup& setup, const Ffn& ffn) {
  double share = real(setup.layout.expert_tp()) / real(setup.layout.tp);
  return real(ffn.top_k) * token_share(setup) * share * setup.options.expert_imbalance;
}

std::vector<SavedTensor> saved_by_layer(const TrainingSetup& setup, const Layer& layer) {
  Rows rows{.setup = setup, .out = {}};
  add_mixer(layer.mixer, rows);
  if (layer.ffn.kind == FfnKind::dense) add_dense(layer.ffn, rows);
  if (layer.ffn.kind == FfnKind::moe) add_moe(layer.ffn, rows);
  if (layer.residual_streams > 1)
    rows.sequence("residual streams",
                  2 * rows.element * real((layer.residual_streams - 1) * setup.model.hidden));
  return std::move(rows.out);
}

double kept_bytes(const std::vector<SavedTensor>& tensors) {
  double bytes = 0;
  for (const SavedTensor& tensor : tensors) bytes += tensor.dropped ? 0 : tensor.bytes;
  return bytes;
}
double dropped_bytes(const std::vector<SavedTensor>& tensors) {
  double bytes = 0;
  for (const SavedTensor& tensor : tensors) bytes += tensor.dropped ? tensor.bytes : 0;
  return bytes;
}

double weight_gradient_bytes(const TrainingSetup& setup, const Layer& layer) {
  Rows rows{.setup = setup, .out = {}};
  const char* product = "";
  for (const Weight& weight : weights(setup.model, layer)) {
    if (!weight.is_product()) continue;
    bool experts = weight.part == Part::experts, fused = std::string_view(weight.product) == product;
    product = weight.product;
    // Where products read quantised copies, that of a weight gradient reads both of its inputs so.
    double input = fused ? 0 : rows.product_input * real(weight.in),
           output = rows.product_input * real(weight.out);
    if (experts) {
      double etp = real(setup.layout.expert_tp()), etp_in = weight.split == Split::dim1 ? etp : 1;
      double etp_out = weight.split == Split::dim1 ? 1 : etp;
      rows.add("experts", (input / etp_in + output / etp_out) * expert_rows(setup, layer.ffn));
      continue;
    }
    weight.split == Split::dim1 ? rows.split("input", input) : rows.sequence("input", input);
    weight.split == Split::dim0 ? rows.split("output", output) : rows.sequence("output", output);
  }
  return kept_bytes(rows.out);
}

bool recomputed_in_full(const Recomputation& re, int64_t index_in_chunk) {
  switch (re.full) {
    case Recomputation::Full::none:
      return false;
    case Recomputation::Full::all:
      return true;
    case Recomputation::Full::first:
      return index_in_chunk < re.layers;
    case Recomputation::Full::every:
      return (index_in_chunk + 1) % std::max<int64_t>(1, re.layers) == 0;
  }
  return false;
}

LayerActivations layer_activations(const TrainingSetup& setup, const Layer& layer, bool full) {
  const Recomputation& re = setup.layout.recompute;
  auto tensors = saved_by_layer(setup, layer);
  double kept = kept_bytes(tensors), dropped = dropped_bytes(tensors);
  if (!full) return {kept, dropped};
  // Groups of uniform_chunk layers keep one input and are recomputed together.
  auto group = real(std::max<int64_t>(1, re.full == Recomputation::Full::all ? re.uniform_chunk : 1));
  return {hidden_shard_bytes(setup) / group, (kept + dropped) * group - hidden_shard_bytes(setup)};
}

}  // namespace tessera::plan
