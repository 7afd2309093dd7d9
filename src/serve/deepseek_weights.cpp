// DeepSeek-V2 and V3. Keys and values of all heads come from one latent vector by kv_b; its part for keys is
// put on the queries' side and its part for values behind the attention, so that the cache holds the latent
// vector alone (DeepSeek-V2 report, section 2.1).
#include <ATen/ops/cat.h>

#include "serve/served_families.h"

namespace tessera::serve {

using at::Tensor;
using kernels::PackedWeight;

namespace {

// Rows whose neighbours are rotated together, in the order of halves that are.
Tensor halves_of_pairs(const Tensor& rows) {
  return at::cat({rows.slice(0, 0, std::nullopt, 2), rows.slice(0, 1, std::nullopt, 2)});
}

class DeepseekLayer {
 public:
  DeepseekLayer(NamedWeights& weights, const ServedSpec& spec, int64_t layer)
      : weights_(weights),
        spec_(spec),
        latent_(*spec.latent),
        layer_(layer),
        prefix_(fmt::format("model.layers.{}.", layer)) {}

  Result<ServedLayer> read() {
    ServedLayer layer;
    TESSERA_ASSIGN_OR_RETURN(layer.attention_norm.weight, read("input_layernorm", {spec_.hidden}));
    TESSERA_ASSIGN_OR_RETURN(layer.ffn_norm.weight, read("post_attention_layernorm", {spec_.hidden}));
    TESSERA_RETURN_IF_ERROR(read_queries(layer));
    TESSERA_RETURN_IF_ERROR(read_latent(layer.latent));
    TESSERA_ASSIGN_OR_RETURN(Tensor o, read("self_attn.o_proj", {spec_.hidden, spec_.heads * latent_.v_dim}));
    layer.o = weights_.blocks(o);
    if (!spec_.is_moe(layer_)) {
      TESSERA_ASSIGN_OR_RETURN(auto dense, network("mlp", spec_.ffn));
      layer.ffn = FeedForward({std::move(dense)});
      return layer;
    }
    TESSERA_RETURN_IF_ERROR(read_experts(layer));
    return layer;
  }

 private:
  Result<Tensor> read(const std::string& name, const std::vector<int64_t>& shape) {
    return weights_.read(prefix_ + name + ".weight", shape);
  }

  // Rows of this rank: the parts without positions of all its heads, then the rotated parts of all.
  Status read_queries(ServedLayer& layer) {
    const int64_t width = spec_.head_dim, input = latent_.q_rank > 0 ? latent_.q_rank : spec_.hidden;
    if (latent_.q_rank > 0) {
      TESSERA_ASSIGN_OR_RETURN(Tensor a, read("self_attn.q_a_proj", {latent_.q_rank, spec_.hidden}));
      layer.latent.q_a = Linear(PackedWeight(a));
      TESSERA_ASSIGN_OR_RETURN(layer.latent.q_a_norm, read("self_attn.q_a_layernorm", {latent_.q_rank}));
    }
    const char* name = latent_.q_rank > 0 ? "self_attn.q_b_proj" : "self_attn.q_proj";
    TESSERA_ASSIGN_OR_RETURN(Tensor whole, read(name, {spec_.heads * width, input}));
    const Tensor q = weights_.own_rows({whole});
    std::vector<Tensor> parts, rotated;
    for (int64_t row = 0; row < q.size(0); row += width) {
      parts.push_back(q.narrow(0, row, latent_.nope_dim));
      const Tensor rope = q.narrow(0, row + latent_.nope_dim, latent_.rope_dim);
      rotated.push_back(latent_.interleaved ? halves_of_pairs(rope) : rope);
    }
    parts.insert(parts.end(), rotated.begin(), rotated.end());
    layer.qkv = Linear(PackedWeight(at::cat(parts)));
    return {};
  }

  Status read_latent(LatentLayer& layer) {
    const int64_t rank = latent_.kv_rank, nope = latent_.nope_dim, v = latent_.v_dim;
    TESSERA_ASSIGN_OR_RETURN(Tensor a,
                             read("self_attn.kv_a_proj_with_mqa", {rank + latent_.rope_dim, spec_.hidden}));
    const Tensor rope = a.narrow(0, rank, latent_.rope_dim);
    layer.kv_a = Linear(
        PackedWeight(at::cat({a.narrow(0, 0, rank), latent_.interleaved ? halves_of_pairs(rope) : rope})));
    TESSERA_ASSIGN_OR_RETURN(layer.kv_a_norm, read("self_attn.kv_a_layernorm", {rank}));
    TESSERA_ASSIGN_OR_RETURN(Tensor whole, read("self_attn.kv_b_proj", {spec_.heads * (nope + v), rank}));
    const Tensor b = weights_.own_rows({whole});
    for (int64_t row = 0; row < b.size(0); row += nope + v) {
      layer.key_up.emplace_back(b.narrow(0, row, nope).t().contiguous());
      layer.value_up.emplace_back(b.narrow(0, row + nope, v).contiguous());
    }
    return {};
  }

  Result<FeedForward::Floats> network(const std::string& name, int64_t width) {
    TESSERA_ASSIGN_OR_RETURN(Tensor gate, read(name + ".gate_proj", {width, spec_.hidden}));
    TESSERA_ASSIGN_OR_RETURN(Tensor up, read(name + ".up_proj", {width, spec_.hidden}));
    TESSERA_ASSIGN_OR_RETURN(Tensor down, read(name + ".down_proj", {spec_.hidden, width}));
    return FeedForward::Floats{.gate_up = PackedWeight(weights_.own_rows({gate, up})),
                               .down = weights_.blocks(down)};
  }

  Status read_experts(ServedLayer& layer) {
    TESSERA_ASSIGN_OR_RETURN(Tensor router, read("mlp.gate", {spec_.moe.experts, spec_.hidden}));
    layer.router = Linear(PackedWeight(router));
    if (spec_.routing->sigmoid) {
      TESSERA_ASSIGN_OR_RETURN(
          layer.router_correction,
          weights_.read(prefix_ + "mlp.gate.e_score_correction_bias", {spec_.moe.experts}, at::kFloat));
    }
    std::vector<FeedForward::Floats> experts;
    for (int64_t e = weights_.place().first_expert; e < weights_.place().last_expert; ++e) {
      TESSERA_ASSIGN_OR_RETURN(auto expert, network(fmt::format("mlp.experts.{}", e), spec_.moe.ffn));
      experts.push_back(std::move(expert));
    }
    layer.ffn = FeedForward(std::move(experts));
    if (spec_.shared_ffn == 0) return {};
    TESSERA_ASSIGN_OR_RETURN(auto shared, network("mlp.shared_experts", spec_.shared_ffn));
    layer.shared = FeedForward({std::move(shared)});
    return {};
  }

  NamedWeights& weights_;
  const ServedSpec& spec_;
  const LatentSpec& latent_;
  int64_t layer_;
  std::string prefix_;
};

// In the checkpoint it is the block behind the last, with what joins its inputs.
std::string mtp_prefix(const ServedSpec& spec) {
  return fmt::format("model.layers.{}.", spec.layers);
}

}  // namespace

bool has_deepseek_mtp(const NamedWeights& weights, const ServedSpec& spec) {
  return weights.has(mtp_prefix(spec) + "eh_proj.weight");
}

Result<MtpLayer> deepseek_mtp(NamedWeights& weights, const ServedSpec& spec) {
  const std::string prefix = mtp_prefix(spec);
  MtpLayer mtp;
  TESSERA_ASSIGN_OR_RETURN(mtp.token_norm, weights.norm(prefix + "enorm", spec.hidden));
  TESSERA_ASSIGN_OR_RETURN(mtp.hidden_norm, weights.norm(prefix + "hnorm", spec.hidden));
  TESSERA_ASSIGN_OR_RETURN(Tensor join,
                           weights.read(prefix + "eh_proj.weight", {spec.hidden, 2 * spec.hidden}));
  mtp.join = Linear(PackedWeight(join));
  TESSERA_ASSIGN_OR_RETURN(mtp.block, DeepseekLayer(weights, spec, spec.layers).read());
  TESSERA_ASSIGN_OR_RETURN(mtp.final_norm, weights.norm(prefix + "shared_head.norm", spec.hidden));
  return mtp;
}

Result<ServedLayer> deepseek_layer(NamedWeights& weights, const ServedSpec& spec, int64_t layer) {
  return DeepseekLayer(weights, spec, layer).read();
}

}  // namespace tessera::serve
