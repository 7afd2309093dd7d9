#include <algorithm>

#include "spec/blueprint.h"

namespace tessera {
namespace {

// Collects the weights of one layer of a model.
struct Collector {
  std::vector<Weight> out;
  void product(const char* name, const char* group, Part part, int64_t rows, int64_t columns, Split split,
               bool bias = false, int64_t max_split = 0) {
    if (rows * columns > 0)
      out.push_back({.name = name,
                     .product = group,
                     .part = part,
                     .out = rows,
                     .in = columns,
                     .split = split,
                     .max_split = max_split,
                     .bias = bias ? rows : 0});
  }
  void vector(const char* name, Part part, int64_t elements, Split split = Split::none) {
    if (elements > 0)
      out.push_back({.name = name, .product = "", .part = part, .out = elements, .split = split});
  }
};

void add_indexer(const Mixer& m, int64_t hidden, Collector& c) {
  if (m.index_heads == 0 || !m.own_index) return;
  int64_t query_input = m.q_rank > 0 ? m.q_rank : hidden;
  c.product("index_q", "index_q", Part::attention, m.index_heads * m.index_dim, query_input, Split::none);
  if (m.kind == MixerKind::compressed) {
    // The indexer compresses its own keys: two overlapping windows, hence twice the size.
    c.product("index_kv", "index_kv", Part::attention, 2 * m.index_dim, hidden, Split::none);
    c.product("index_compress_gate", "index_kv", Part::attention, 2 * m.index_dim, hidden, Split::none);
    c.vector("index_positions", Part::attention, 2 * m.index_dim * m.compress_ratio + m.index_dim);
  } else {
    c.product("index_k", "index_k", Part::attention, m.index_dim, hidden, Split::none);
    c.vector("index_norm", Part::attention, 2 * m.index_dim);
  }
  if (m.kind != MixerKind::attention)  // weights of the indexer's heads
    c.product("index_weights", "index_k", Part::attention, m.index_heads, hidden, Split::none);
}

void add_attention(const Mixer& m, int64_t hidden, Collector& c) {
  int64_t q = m.heads * m.head_dim * (m.output_gate ? 2 : 1), k = m.kv_heads * m.head_dim;
  c.product("q", "qkv", Part::attention, q, hidden, Split::dim0, m.qkv_bias, m.heads);
  if (m.own_kv) c.product("k", "qkv", Part::attention, k, hidden, Split::dim0, m.qkv_bias, m.kv_heads);
  if (m.own_kv && !m.shared_kv)
    c.product("v", "qkv", Part::attention, m.kv_heads * m.v_head_dim, hidden, Split::dim0, m.qkv_bias,
              m.kv_heads);
  c.product("o", "o", Part::attention, hidden, m.heads * m.v_head_dim, Split::dim1, m.out_bias, m.heads);
}

void add_latent_query(const Mixer& m, int64_t hidden, Collector& c) {
  int64_t q = m.heads * m.head_dim;
  if (m.q_rank == 0) return c.product("q", "q", Part::attention, q, hidden, Split::dim0, m.qkv_bias, m.heads);
  c.product("q_a", "qkv_a", Part::attention, m.q_rank, hidden, Split::none, m.qkv_bias);
  c.vector("q_a_norm", Part::attention, m.q_rank);
  c.product("q_b", "q_b", Part::attention, q, m.q_rank, Split::dim0, false, m.heads);
}

void add_mla(const Mixer& m, int64_t hidden, Collector& c) {
  add_latent_query(m, hidden, c);
  c.product("kv_a", "qkv_a", Part::attention, m.kv_rank + m.rope_dim, hidden, Split::none, m.qkv_bias);
  c.vector("kv_a_norm", Part::attention, m.kv_rank);
  c.product("kv_b", "kv_b", Part::attention, m.heads * (m.nope_dim + m.v_head_dim), m.kv_rank, Split::dim0,
            false, m.heads);
  c.product("o", "o", Part::attention, hidden, m.heads * m.v_head_dim, Split::dim1, m.out_bias, m.heads);
}

// DeepSeek-V4: one key/value head of head_dim; a history compressed by 4 keeps two overlapping windows.
void add_compressed(const Mixer& m, int64_t hidden, Collector& c) {
  add_latent_query(m, hidden, c);
  c.product("kv", "qkv_a", Part::attention, m.head_dim, hidden, Split::none);
  c.vector("kv_norm", Part::attention, m.head_dim);
  int64_t history = m.index_heads > 0 ? 2 * m.head_dim : m.head_dim;
  if (m.compress_ratio > 0) {
    c.product("compress_kv", "compress", Part::attention, history, hidden, Split::none);
    c.product("compress_gate", "compress", Part::attention, history, hidden, Split::none);
    c.vector("compress_positions", Part::attention, history * m.compress_ratio + m.head_dim);
  }
  c.product("o_a", "o_a", Part::attention, m.out_rank, m.heads * m.head_dim / m.out_groups, Split::dim0);
  c.out.back().copies = c.out.back().used = m.out_groups;
  c.product("o", "o", Part::attention, hidden, m.out_groups * m.out_rank, Split::dim1);
}

void add_linear_attention(const Mixer& m, int64_t hidden, Collector& c) {
  int64_t keys = m.kv_heads * m.head_dim, values = m.heads * m.v_head_dim;
  c.product("qkv", "in", Part::attention, 2 * keys + values, hidden, Split::dim0, m.qkv_bias, m.kv_heads);
  if (m.output_gate) c.product("z", "in", Part::attention, values, hidden, Split::dim0, false, m.kv_heads);
  c.product("ba", "in", Part::attention, 2 * m.heads, hidden, Split::dim0, false, m.kv_heads);
  c.vector("conv", Part::attention, (2 * keys + values) * m.conv_kernel, Split::dim0);
  c.vector("decay", Part::attention, 2 * m.heads, Split::dim0);
  c.vector("gated_norm", Part::attention, m.v_head_dim);
  c.product("o", "o", Part::attention, hidden, values, Split::dim1, m.out_bias, m.kv_heads);
}

void add_mamba2(const Mixer& m, int64_t hidden, Collector& c) {
  int64_t inner = m.heads * m.v_head_dim, mixed = inner + 2 * m.kv_heads * m.state;
  c.product("in", "in", Part::attention, inner + mixed + m.heads, hidden, Split::dim0, m.qkv_bias, m.kv_heads);
  c.vector("conv", Part::attention, mixed * (m.conv_kernel + 1), Split::dim0);
  c.vector("decay", Part::attention, 3 * m.heads, Split::dim0);
  c.vector("gated_norm", Part::attention, inner, Split::dim0);
  c.product("o", "o", Part::attention, hidden, inner, Split::dim1, m.out_bias, m.kv_heads);
}

void add_mixer(const Mixer& m, int64_t hidden, Collector& c) {
  switch (m.kind) {
    case MixerKind::none:
      return;
    case MixerKind::attention:
      add_attention(m, hidden, c);
      break;
    case MixerKind::mla:
      add_mla(m, hidden, c);
      break;
    case MixerKind::compressed:
      add_compressed(m, hidden, c);
      break;
    case MixerKind::linear_attention:
      add_linear_attention(m, hidden, c);
      break;
    case MixerKind::mamba2:
      add_mamba2(m, hidden, c);
      break;
  }
  add_indexer(m, hidden, c);
  c.vector("mixer_vectors", Part::attention, m.vectors);
}

void add_mlp(Part part, bool gated, int64_t width, int64_t hidden, bool biases, Collector& c) {
  if (gated) c.product("gate", "gate_up", part, width, hidden, Split::dim0, biases);
  c.product("up", "gate_up", part, width, hidden, Split::dim0, biases);
  c.product("down", "down", part, hidden, width, Split::dim1, biases);
}

void add_moe(const Ffn& f, int64_t hidden, Collector& c) {
  int64_t inner = f.expert_hidden > 0 ? f.expert_hidden : hidden;
  c.product("router", "router", Part::router, f.experts, hidden, Split::none, f.router_bias);
  c.vector("router_vectors", Part::router, f.router_vectors);
  if (f.expert_hidden > 0) {
    c.product("latent_in", "latent_in", Part::shared_experts, inner, hidden, Split::none);
    c.product("latent_out", "latent_out", Part::shared_experts, hidden, inner, Split::none);
  }
  size_t first = c.out.size();
  add_mlp(Part::experts, f.gated, f.expert_width, inner, f.biases, c);
  for (size_t i = first; i < c.out.size(); ++i) c.out[i].copies = f.experts, c.out[i].used = f.top_k;
  if (f.shared_width > 0) add_mlp(Part::shared_experts, f.shared_gated, f.shared_width, hidden, f.biases, c);
  if (f.shared_gate) c.product("shared_gate", "shared_gate", Part::shared_experts, 1, hidden, Split::none);
}

double& of_part(ParameterTally& tally, Part part) {
  switch (part) {
    case Part::embedding:
      return tally.embedding;
    case Part::attention:
      return tally.attention;
    case Part::ffn:
      return tally.ffn;
    case Part::router:
      return tally.router;
    case Part::experts:
      return tally.experts;
    case Part::shared_experts:
      return tally.shared_experts;
    case Part::norms:
      return tally.norms;
    case Part::head:
      return tally.head;
  }
  return tally.norms;
}

ParameterTally tally_of(const std::vector<Weight>& list) {
  ParameterTally sum;
  for (const Weight& weight : list) {
    auto elements = static_cast<double>(weight.elements());
    sum.total += elements;
    sum.active += static_cast<double>(weight.used_elements());
    of_part(sum, weight.part) += elements;
  }
  return sum;
}

void add(ParameterTally& sum, const ParameterTally& part, double times) {
  for (auto field :
       {&ParameterTally::total, &ParameterTally::active, &ParameterTally::embedding, &ParameterTally::attention,
        &ParameterTally::ffn, &ParameterTally::router, &ParameterTally::experts,
        &ParameterTally::shared_experts, &ParameterTally::norms, &ParameterTally::head})
    sum.*field += times * part.*field;
}

// Bytes of a layer's weights as published.
double stored_bytes(const Blueprint& model, const Layer& layer) {
  double bytes = 0;
  for (const Weight& weight : weights(model, layer)) {
    bool quantised = weight.is_product() && weight.part != Part::router;
    WeightFormat format = weight.part == Part::experts     ? model.expert_format
                          : weight.part == Part::attention ? model.attention_format
                                                           : model.ffn_format;
    bytes += static_cast<double>(weight.elements()) * (quantised ? bytes_per_weight(format) : 2);
  }
  return bytes;
}

}  // namespace

std::vector<Weight> weights(const Blueprint& model, const Layer& layer) {
  Collector c;
  add_mixer(layer.mixer, model.hidden, c);
  if (layer.ffn.kind == FfnKind::dense)
    add_mlp(Part::ffn, layer.ffn.gated, layer.ffn.width, model.hidden, layer.ffn.biases, c);
  if (layer.ffn.kind == FfnKind::moe) add_moe(layer.ffn, model.hidden, c);
  c.vector("norms", Part::norms, layer.norms * model.hidden * (model.norm_bias ? 2 : 1));
  c.vector("residual_mixing", Part::norms, layer.residual_mixing);
  c.vector("layer_vectors", Part::norms, layer.vectors);
  return std::move(c.out);
}

std::vector<Weight> outer_weights(const Blueprint& model) {
  Collector c;
  c.product("embedding", "", Part::embedding, model.vocab, model.hidden, Split::vocab);
  c.product("positions", "", Part::embedding, model.learned_positions, model.hidden, Split::none);
  c.vector("embedding_extra", Part::embedding, model.embedding_extra);
  c.vector("outer_norms", Part::norms, model.outer_norms * model.hidden * (model.norm_bias ? 2 : 1));
  c.product("head", "head", Part::head, model.vocab, model.hidden, Split::vocab);
  c.out.back().stored = !model.tied;
  c.vector("head_extra", Part::head, model.head_extra);
  return std::move(c.out);
}

ParameterTally tally(const Blueprint& model, const Layer& layer) {
  return tally_of(weights(model, layer));
}

ParameterTally tally(const Blueprint& model) {
  ParameterTally sum = tally_of(outer_weights(model));
  for (size_t kind = 0; kind < model.kinds.size(); ++kind) {
    auto times = std::count(model.order.begin(), model.order.end(), static_cast<int32_t>(kind));
    add(sum, tally(model, model.kinds[kind]), static_cast<double>(times));
  }
  return sum;
}

// A module projects the token's embedding beside the last hidden state, normalises both and its output;
// embedding and head are the model's own (DeepSeek-V3 report, section 2.2).
double mtp_parameters(const Blueprint& model) {
  double sum = 0, hidden = static_cast<double>(model.hidden);
  for (const Layer& layer : model.mtp) sum += tally(model, layer).total + 2 * hidden * hidden + 3 * hidden;
  return sum;
}

double published_weight_bytes(const Blueprint& model) {
  double bytes = 2 * tally_of(outer_weights(model)).total;
  for (int32_t kind : model.order) bytes += stored_bytes(model, model.kinds[static_cast<size_t>(kind)]);
  return bytes;
}

}  // namespace tessera
