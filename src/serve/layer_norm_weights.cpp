// GPT-2, whose products are stored as [in, out], and ESM-2.
#include "serve/served_families.h"

namespace tessera::serve {

using at::Tensor;
using kernels::PackedWeight;

namespace {

struct Affine {
  Tensor weight, bias;  // [n, k] in the type of the activations, float32 [n]
};

class AffineReader {
 public:
  AffineReader(NamedWeights& weights, std::string prefix, bool stored_by_input)
      : weights_(weights), prefix_(std::move(prefix)), stored_by_input_(stored_by_input) {}

  Result<Affine> product(const std::string& name, int64_t n, int64_t k) {
    const std::vector<int64_t> shape = stored_by_input_ ? std::vector{k, n} : std::vector{n, k};
    Affine out;
    TESSERA_ASSIGN_OR_RETURN(Tensor stored, weights_.read(prefix_ + name + ".weight", shape));
    TESSERA_ASSIGN_OR_RETURN(out.bias, weights_.read(prefix_ + name + ".bias", {n}, at::kFloat));
    out.weight = stored_by_input_ ? stored.t() : stored;
    return out;
  }
  Result<Norm> norm(const std::string& name, int64_t width) { return weights_.norm(prefix_ + name, width); }

  FeedForward network(const Affine& up, const Affine& down, const kernels::Activation& activation) const {
    FeedForward::Floats floats{.gate_up = PackedWeight(weights_.own_rows({up.weight})),
                               .down = weights_.blocks(down.weight, down.bias),
                               .gate_up_bias = weights_.own_rows({up.bias})};
    return FeedForward({std::move(floats)}, activation);
  }

 private:
  NamedWeights& weights_;
  std::string prefix_;
  bool stored_by_input_;
};

}  // namespace

Result<ServedLayer> gpt2_layer(NamedWeights& weights, const ServedSpec& spec, int64_t l) {
  const int64_t hidden = spec.hidden;
  AffineReader reader(weights, fmt::format("{}h.{}.", gpt2_prefix(weights), l), true);
  ServedLayer layer;
  TESSERA_ASSIGN_OR_RETURN(layer.attention_norm, reader.norm("ln_1", hidden));
  TESSERA_ASSIGN_OR_RETURN(layer.ffn_norm, reader.norm("ln_2", hidden));
  TESSERA_ASSIGN_OR_RETURN(Affine qkv, reader.product("attn.c_attn", 3 * hidden, hidden));
  auto rows = [&](const Tensor& whole) {
    return weights.own_rows(
        {whole.narrow(0, 0, hidden), whole.narrow(0, hidden, hidden), whole.narrow(0, 2 * hidden, hidden)});
  };
  layer.qkv = Linear(PackedWeight(rows(qkv.weight)), rows(qkv.bias));
  TESSERA_ASSIGN_OR_RETURN(Affine o, reader.product("attn.c_proj", hidden, hidden));
  layer.o = weights.blocks(o.weight, o.bias);
  TESSERA_ASSIGN_OR_RETURN(Affine up, reader.product("mlp.c_fc", spec.ffn, hidden));
  TESSERA_ASSIGN_OR_RETURN(Affine down, reader.product("mlp.c_proj", hidden, spec.ffn));
  layer.ffn = reader.network(up, down, spec.activation);
  return layer;
}

Result<ServedLayer> esm_layer(NamedWeights& weights, const ServedSpec& spec, int64_t l) {
  const int64_t hidden = spec.hidden;
  AffineReader reader(weights, fmt::format("{}encoder.layer.{}.", esm_prefix(weights), l), false);
  ServedLayer layer;
  TESSERA_ASSIGN_OR_RETURN(layer.attention_norm, reader.norm("attention.LayerNorm", hidden));
  TESSERA_ASSIGN_OR_RETURN(layer.ffn_norm, reader.norm("LayerNorm", hidden));
  TESSERA_ASSIGN_OR_RETURN(Affine q, reader.product("attention.self.query", hidden, hidden));
  TESSERA_ASSIGN_OR_RETURN(Affine k, reader.product("attention.self.key", hidden, hidden));
  TESSERA_ASSIGN_OR_RETURN(Affine v, reader.product("attention.self.value", hidden, hidden));
  layer.qkv = Linear(PackedWeight(weights.own_rows({q.weight, k.weight, v.weight})),
                     weights.own_rows({q.bias, k.bias, v.bias}));
  TESSERA_ASSIGN_OR_RETURN(Affine o, reader.product("attention.output.dense", hidden, hidden));
  layer.o = weights.blocks(o.weight, o.bias);
  TESSERA_ASSIGN_OR_RETURN(Affine up, reader.product("intermediate.dense", spec.ffn, hidden));
  TESSERA_ASSIGN_OR_RETURN(Affine down, reader.product("output.dense", hidden, spec.ffn));
  layer.ffn = reader.network(up, down, spec.activation);
  return layer;
}

}  // namespace tessera::serve
