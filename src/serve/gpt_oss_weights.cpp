// gpt-oss: biases on every product, a sink for each head, experts in one tensor for all of them, as floats or
// in MXFP4 (OCP Microscaling Formats 1.0: 32 elements E2M1 share a scale 2^(e - 127)).
#include <ATen/ops/empty.h>

#include <array>
#include <cmath>

#include "serve/served_families.h"

namespace tessera::serve {

using at::Tensor;

namespace {

constexpr int64_t kMxGroup = 32;
constexpr std::array<float, 16> kE2m1 = {0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6};

// blocks [1, n, k / 32, 16] of bytes, the earlier element in the lower half; scales [1, n, k / 32].
Tensor from_mxfp4(const Tensor& blocks, const Tensor& scales) {
  const int64_t rows = blocks.size(1), groups = blocks.size(2);
  Tensor out = at::empty({rows, groups * kMxGroup}, at::kFloat);
  const auto* byte = blocks.const_data_ptr<uint8_t>();
  const auto* exponent = scales.const_data_ptr<uint8_t>();
  auto* to = out.mutable_data_ptr<float>();
  for (int64_t group = 0; group < rows * groups; ++group) {
    const float scale = std::ldexp(1.0f, exponent[group] - 127);
    for (int64_t i = 0; i < kMxGroup / 2; ++i, ++byte) {
      *to++ = kE2m1[*byte & 15] * scale;
      *to++ = kE2m1[*byte >> 4] * scale;
    }
  }
  return out;
}

// The weight [n, k] of one expert; floats are stored as [k, n].
Result<Tensor> expert_weight(NamedWeights& weights, const std::string& name, int64_t experts, int64_t expert,
                             int64_t n, int64_t k) {
  if (!weights.has(name + "_blocks")) {
    TESSERA_ASSIGN_OR_RETURN(Tensor stored, weights.read_part(name, {experts, k, n}, expert, weights.dtype()));
    return stored[0].t();
  }
  TESSERA_ASSIGN_OR_RETURN(
      Tensor blocks, weights.read_part(name + "_blocks", {experts, n, k / kMxGroup, 16}, expert, at::kByte));
  TESSERA_ASSIGN_OR_RETURN(Tensor scales,
                           weights.read_part(name + "_scales", {experts, n, k / kMxGroup}, expert, at::kByte));
  return from_mxfp4(blocks, scales).to(weights.dtype());
}

// Rows of gate and up are stored in turns.
Tensor of_gate(const Tensor& tensor) {
  return tensor.slice(0, 0, std::nullopt, 2);
}
Tensor of_up(const Tensor& tensor) {
  return tensor.slice(0, 1, std::nullopt, 2);
}

Result<FeedForward> experts_of(NamedWeights& weights, const ServedSpec& spec, const std::string& prefix) {
  const int64_t experts = spec.moe.experts, width = spec.moe.ffn, hidden = spec.hidden;
  TESSERA_ASSIGN_OR_RETURN(Tensor up_bias,
                           weights.read(prefix + "gate_up_proj_bias", {experts, 2 * width}, at::kFloat));
  TESSERA_ASSIGN_OR_RETURN(Tensor down_bias,
                           weights.read(prefix + "down_proj_bias", {experts, hidden}, at::kFloat));
  std::vector<FeedForward::Floats> all;
  for (int64_t e = weights.place().first_expert; e < weights.place().last_expert; ++e) {
    TESSERA_ASSIGN_OR_RETURN(Tensor gate_up,
                             expert_weight(weights, prefix + "gate_up_proj", experts, e, 2 * width, hidden));
    TESSERA_ASSIGN_OR_RETURN(Tensor down,
                             expert_weight(weights, prefix + "down_proj", experts, e, hidden, width));
    all.push_back({.gate_up = kernels::PackedWeight(weights.own_rows({of_gate(gate_up), of_up(gate_up)})),
                   .down = weights.blocks(down, down_bias[e].contiguous()),
                   .gate_up_bias = weights.own_rows({of_gate(up_bias[e]), of_up(up_bias[e])})});
  }
  return FeedForward(std::move(all), spec.activation);
}

}  // namespace

Result<ServedLayer> gpt_oss_layer(NamedWeights& weights, const ServedSpec& spec, int64_t l) {
  const std::string prefix = fmt::format("model.layers.{}.", l), attention = prefix + "self_attn.";
  const int64_t hidden = spec.hidden, q = spec.heads * spec.head_dim, kv = spec.kv_heads * spec.head_dim;
  ServedLayer layer;
  TESSERA_ASSIGN_OR_RETURN(layer.attention_norm.weight,
                           weights.read(prefix + "input_layernorm.weight", {hidden}));
  TESSERA_ASSIGN_OR_RETURN(layer.ffn_norm.weight,
                           weights.read(prefix + "post_attention_layernorm.weight", {hidden}));
  std::vector<Tensor> matrices, biases;
  for (const auto& [name, rows] : {std::pair("q_proj", q), std::pair("k_proj", kv), std::pair("v_proj", kv)}) {
    TESSERA_ASSIGN_OR_RETURN(Tensor matrix, weights.read(attention + name + ".weight", {rows, hidden}));
    TESSERA_ASSIGN_OR_RETURN(Tensor bias, weights.read(attention + name + ".bias", {rows}, at::kFloat));
    matrices.push_back(matrix);
    biases.push_back(bias);
  }
  layer.qkv = Linear(kernels::PackedWeight(weights.own_rows({matrices[0], matrices[1], matrices[2]})),
                     weights.own_rows({biases[0], biases[1], biases[2]}));
  TESSERA_ASSIGN_OR_RETURN(Tensor sinks, weights.read(attention + "sinks", {spec.heads}, at::kFloat));
  layer.sinks = weights.own_rows({sinks});
  TESSERA_ASSIGN_OR_RETURN(Tensor o, weights.read(attention + "o_proj.weight", {hidden, q}));
  TESSERA_ASSIGN_OR_RETURN(Tensor o_bias, weights.read(attention + "o_proj.bias", {hidden}, at::kFloat));
  layer.o = weights.blocks(o, o_bias);
  TESSERA_ASSIGN_OR_RETURN(Tensor router,
                           weights.read(prefix + "mlp.router.weight", {spec.moe.experts, hidden}));
  TESSERA_ASSIGN_OR_RETURN(Tensor router_bias,
                           weights.read(prefix + "mlp.router.bias", {spec.moe.experts}, at::kFloat));
  layer.router = Linear(kernels::PackedWeight(router), router_bias);
  TESSERA_ASSIGN_OR_RETURN(layer.ffn, experts_of(weights, spec, prefix + "mlp.experts."));
  return layer;
}

}  // namespace tessera::serve
