#include "spec/inventory.h"

#include <functional>
#include <numeric>

namespace tessera {
namespace {

// Names that differ between architectures.
struct FfnNames {
  std::string router, experts, gate, up, down;
};
FfnNames moe_names(const ModelSpec& spec) {
  if (spec.architecture == Architecture::mixtral)
    return {"block_sparse_moe.gate.weight", "block_sparse_moe.experts", "w1", "w3", "w2"};
  return {"mlp.gate.weight", "mlp.experts", "gate_proj", "up_proj", "down_proj"};
}

void add_ffn(const std::string& prefix, int64_t layer, int64_t expert, int64_t width, int64_t hidden,
             const FfnNames& names, std::vector<TensorSpec>& out) {
  out.push_back({prefix + names.gate + ".weight", Role::gate, layer, expert, {width, hidden}, Split::dim0});
  out.push_back({prefix + names.up + ".weight", Role::up, layer, expert, {width, hidden}, Split::dim0});
  out.push_back({prefix + names.down + ".weight", Role::down, layer, expert, {hidden, width}, Split::dim1});
}

void add_block(const ModelSpec& spec, int64_t layer, std::vector<TensorSpec>& out) {
  std::string prefix = fmt::format("model.layers.{}.", layer);
  int64_t hidden = spec.hidden, q = spec.heads * spec.head_dim, kv = spec.kv_heads * spec.head_dim;
  auto add = [&](const std::string& name, Role role, std::vector<int64_t> shape, Split split) {
    out.push_back({prefix + name + ".weight", role, layer, -1, std::move(shape), split});
  };
  add("input_layernorm", Role::attention_norm, {hidden}, Split::none);
  add("self_attn.q_proj", Role::q, {q, hidden}, Split::dim0);
  add("self_attn.k_proj", Role::k, {kv, hidden}, Split::dim0);
  add("self_attn.v_proj", Role::v, {kv, hidden}, Split::dim0);
  if (spec.qk_norm) add("self_attn.q_norm", Role::q_norm, {spec.head_dim}, Split::none);
  if (spec.qk_norm) add("self_attn.k_norm", Role::k_norm, {spec.head_dim}, Split::none);
  add("self_attn.o_proj", Role::o, {hidden, q}, Split::dim1);
  add("post_attention_layernorm", Role::ffn_norm, {hidden}, Split::none);
  if (!spec.is_moe(layer)) {
    add_ffn(prefix + "mlp.", layer, -1, spec.ffn, hidden, {"", "", "gate_proj", "up_proj", "down_proj"}, out);
    return;
  }
  FfnNames names = moe_names(spec);
  out.push_back({prefix + names.router, Role::router, layer, -1, {spec.moe.experts, hidden}, Split::none});
  for (int64_t expert = 0; expert < spec.moe.experts; ++expert)
    add_ffn(fmt::format("{}{}.{}.", prefix, names.experts, expert), layer, expert, spec.moe.ffn, hidden, names,
            out);
}

}  // namespace

int64_t TensorSpec::elements() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

std::vector<TensorSpec> inventory(const ModelSpec& spec) {
  std::vector<TensorSpec> out;
  out.push_back({"model.embed_tokens.weight",
                 Role::embedding,
                 -1,
                 -1,
                 {spec.vocab, spec.hidden},
                 Split::vocab,
                 spec.tied ? 2 : 1});
  for (int64_t layer = 0; layer < spec.layers; ++layer) add_block(spec, layer, out);
  out.push_back({"model.norm.weight", Role::final_norm, -1, -1, {spec.hidden}, Split::none});
  if (!spec.tied)
    out.push_back({"lm_head.weight", Role::head, -1, -1, {spec.vocab, spec.hidden}, Split::vocab});
  return out;
}

ParameterCount count_parameters(const ModelSpec& spec) {
  ParameterCount count;
  for (const TensorSpec& tensor : inventory(spec)) {
    count.total += tensor.elements();
    if (tensor.expert < spec.moe.top_k) count.active += tensor.elements();
  }
  return count;
}

double forward_flops_per_token(const ModelSpec& spec, int64_t seq) {
  double matrices = 0;
  for (const TensorSpec& tensor : inventory(spec)) {
    if (tensor.shape.size() < 2 || tensor.expert >= spec.moe.top_k) continue;
    if (tensor.role == Role::embedding && !spec.tied) continue;
    matrices += static_cast<double>(tensor.elements());
  }
  double attention =
      2.0 * static_cast<double>(spec.layers * spec.heads * spec.head_dim) * static_cast<double>(seq);
  return 2 * matrices + attention;
}

}  // namespace tessera
