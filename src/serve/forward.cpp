#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "serve/expert_exchange.h"
#include "serve/model.h"
#include "serve/torch_error.h"

namespace tessera::serve {

using at::Tensor;

namespace {

Bytes tensor_bytes(const Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}
MutableBytes mutable_tensor_bytes(Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()};
}

Tensor to_tensor(const std::vector<int64_t>& values, at::ScalarType dtype) {
  return at::tensor(at::ArrayRef<int64_t>(values), at::TensorOptions(at::kLong)).to(dtype);
}

// Which rows of the step each adapter adds to.
std::vector<LoraRows> adapted_rows(const std::vector<LoraAdapter>& adapters, const StepBatch& batch) {
  std::vector<LoraRows> out;
  if (batch.adapter.empty()) return out;
  for (size_t a = 0; a < adapters.size(); ++a) {
    std::vector<int64_t> rows;
    for (size_t t = 0; t < batch.tokens.size(); ++t)
      if (batch.adapter[static_cast<size_t>(batch.sequence[t])] == static_cast<int64_t>(a))
        rows.push_back(static_cast<int64_t>(t));
    if (!rows.empty()) out.push_back({&adapters[a], to_tensor(rows, at::kLong)});
  }
  return out;
}

// What a token of an encoder sees: its whole sequence.
std::vector<int64_t> last_positions(const StepBatch& batch) {
  std::vector<int64_t> last(static_cast<size_t>(batch.num_sequences())), of_token;
  for (size_t t = 0; t < batch.tokens.size(); ++t) {
    int64_t& most = last[static_cast<size_t>(batch.sequence[t])];
    most = std::max(most, batch.positions[t]);
  }
  for (int64_t sequence : batch.sequence) of_token.push_back(last[static_cast<size_t>(sequence)]);
  return of_token;
}

constexpr double kLatentNormEps = 1e-6;  // of DeepSeek's models, whatever their other norms take

// Rows in the order of their experts: expert e has rows [first[e], first[e + 1]); row i is of token[i], and
// position [T, k] says where the rows of a token went.
struct Sorted {
  std::vector<int64_t> first;
  Tensor token, position;

  Sorted(const Tensor& expert_Tk, int64_t experts)
      : first(static_cast<size_t>(experts) + 1),
        token(at::empty({expert_Tk.numel()}, at::TensorOptions(at::kLong))),
        position(at::empty(expert_Tk.sizes(), at::TensorOptions(at::kLong))) {
    const auto* expert = expert_Tk.const_data_ptr<int32_t>();
    const int64_t rows = expert_Tk.numel(), top_k = expert_Tk.size(1);
    for (int64_t i = 0; i < rows; ++i) ++first[static_cast<size_t>(expert[i]) + 1];
    std::partial_sum(first.begin(), first.end(), first.begin());
    std::vector<int64_t> next(first.begin(), first.end() - 1);
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t at = next[static_cast<size_t>(expert[i])]++;
      position.mutable_data_ptr<int64_t>()[i] = at;
      token.mutable_data_ptr<int64_t>()[at] = i / top_k;
    }
  }
};

}  // namespace

// One step. T tokens, D hidden, H query and K KV heads of this rank, E head_dim, F FFN width of this rank,
// X experts. Errors of the group are kept and end the pass at the next check.
class ForwardPass {
 public:
  ForwardPass(const ServedModel& model, const StepBatch& batch, KvCache& cache)
      : model_(model),
        cache_(cache),
        tokens_(batch.num_tokens()),
        positions_(to_tensor(batch.positions, at::kLong)),
        seen_(to_tensor(model.spec_.encoder ? last_positions(batch) : batch.positions, at::kInt)),
        sequence_(to_tensor(batch.sequence, at::kInt)),
        slot_(to_tensor(batch.slot, at::kLong)),
        block_table_(to_tensor(batch.block_table, at::kInt).view({batch.num_sequences(), batch.max_blocks})),
        adapted_(adapted_rows(model.adapters_, batch)) {}

  Result<PassRows> run(const StepBatch& batch) {
    PassRows rows;
    if (tokens_ == 0) {
      TESSERA_ASSIGN_OR_RETURN(rows.logits, help_with_experts());
      return rows;
    }
    TESSERA_ASSIGN_OR_RETURN(Tensor x_TD, through_layers(batch));
    if (!model_.place_.last_stage()) {
      TESSERA_RETURN_IF_ERROR(model_.groups_.world->send(model_.place_.next, tensor_bytes(x_TD)));
      return rows;
    }
    TESSERA_ASSIGN_OR_RETURN(rows.logits, logits(x_TD, to_tensor(batch.wanted, at::kLong), model_.final_norm_));
    if (model_.mtp_) rows.hidden = norm(x_TD, model_.final_norm_);
    return rows;
  }

  Result<Tensor> hidden(const StepBatch& batch) {
    TESSERA_ASSIGN_OR_RETURN(Tensor x_TD, through_layers(batch));
    return norm(x_TD, model_.final_norm_);
  }

  // Through the multi-token-prediction layer; hidden_TD are of the tokens in front.
  Result<PassRows> ahead(const StepBatch& batch, const Tensor& hidden_TD) {
    const ServedLayer& block = model_.mtp_->block;
    TESSERA_ASSIGN_OR_RETURN(Tensor x_TD, joined(batch, hidden_TD));
    TESSERA_RETURN_IF_ERROR(through_layer(x_TD, block, model_.layers_.size()));
    PassRows rows{.logits = {}, .hidden = norm(x_TD, model_.mtp_->final_norm)};
    TESSERA_ASSIGN_OR_RETURN(rows.logits,
                             logits(x_TD, to_tensor(batch.wanted, at::kLong), model_.mtp_->final_norm));
    return rows;
  }

  // Only the keys of that layer.
  Status note_ahead(const StepBatch& batch, const Tensor& hidden_TD) {
    const ServedLayer& block = model_.mtp_->block;
    TESSERA_ASSIGN_OR_RETURN(Tensor x_TD, joined(batch, hidden_TD));
    write_latent(norm(x_TD, block.attention_norm), block, model_.layers_.size());
    return {};
  }

 private:
  Result<Tensor> joined(const StepBatch& batch, const Tensor& hidden_TD) const {
    const MtpLayer& mtp = *model_.mtp_;
    TESSERA_ASSIGN_OR_RETURN(Tensor token_TD, embed(batch));
    Tensor x_TD = empty(token_TD.sizes());
    mtp.join.apply(at::cat({norm(token_TD, mtp.token_norm), norm(hidden_TD, mtp.hidden_norm)}, 1), x_TD);
    return x_TD;
  }

  Result<Tensor> through_layers(const StepBatch& batch) {
    TESSERA_ASSIGN_OR_RETURN(Tensor x_TD, enter_stage(batch));
    for (size_t l = 0; l < model_.layers_.size(); ++l)
      TESSERA_RETURN_IF_ERROR(through_layer(x_TD, model_.layers_[l], l));
    return x_TD;
  }

  Status through_layer(Tensor& x_TD, const ServedLayer& layer, size_t l) const {
    TESSERA_RETURN_IF_ERROR(add_over_ranks(x_TD, attention(norm(x_TD, layer.attention_norm), layer, l)));
    TESSERA_ASSIGN_OR_RETURN(Tensor y_TD, feed_forward(norm(x_TD, layer.ffn_norm), layer, l));
    return add_over_ranks(x_TD, y_TD);
  }

  // Embeds, or takes over from the stage before.
  Result<Tensor> enter_stage(const StepBatch& batch) const {
    if (model_.place_.first_stage()) return embed(batch);
    Tensor x_TD = empty({tokens_, model_.spec_.hidden});
    TESSERA_RETURN_IF_ERROR(model_.groups_.world->recv(model_.place_.previous, mutable_tensor_bytes(x_TD)));
    return x_TD;
  }

  // No tokens of its own: other replicas may have some for this one's experts.
  Result<Tensor> help_with_experts() const {
    const Tensor none = empty({0, model_.spec_.hidden});
    for (const auto& layer : model_.layers_)
      if (spreads_experts(layer)) TESSERA_RETURN_IF_ERROR(own_experts(none, {}, layer));
    if (!model_.place_.last_stage()) return Tensor();
    return empty({0, model_.spec_.vocab}, at::kFloat);
  }

  bool spreads_experts(const ServedLayer& layer) const {
    return layer.router.n() > 0 && model_.groups_.experts != nullptr;
  }

  Tensor empty(at::IntArrayRef sizes, at::ScalarType dtype) const {
    return at::empty(sizes, at::TensorOptions().dtype(dtype));
  }
  Tensor empty(at::IntArrayRef sizes) const { return empty(sizes, model_.dtype_); }

  Tensor norm(const Tensor& x, const Norm& norm) const {
    Tensor y = at::empty_like(x), rstd;
    if (norm.bias.defined())
      kernels::layer_norm(x, norm.weight, norm.bias, model_.spec_.norm_eps, y);
    else
      kernels::rms_norm(x, norm.weight, model_.spec_.norm_eps, y, rstd);
    return y;
  }

  Result<Tensor> embed(const StepBatch& batch) const {
    TESSERA_ASSIGN_OR_RETURN(Tensor x_TD, look_up(to_tensor(batch.tokens, at::kLong)));
    if (model_.spec_.mask_token >= 0) scale_embeddings(batch, x_TD);
    if (model_.positions_.defined()) {
      Tensor added = empty(x_TD.sizes());
      kernels::embedding(model_.positions_, positions_, 0, added);
      kernels::add_rounded(x_TD, added, x_TD);
    }
    return x_TD;
  }

  // Token dropout of ESM-2: masked tokens are zeros, and the others make up for them as in training, where 12 %
  // were.
  void scale_embeddings(const StepBatch& batch, Tensor& x_TD) const {
    std::vector<float> masked(static_cast<size_t>(batch.num_sequences())), count(masked.size());
    for (size_t t = 0; t < batch.tokens.size(); ++t) {
      count[static_cast<size_t>(batch.sequence[t])] += 1;
      masked[static_cast<size_t>(batch.sequence[t])] +=
          batch.tokens[t] == model_.spec_.mask_token ? 1.0f : 0.0f;
    }
    Tensor factor = empty({tokens_, 1}, at::kFloat);
    for (size_t t = 0; t < batch.tokens.size(); ++t) {
      const auto s = static_cast<size_t>(batch.sequence[t]);
      const bool is_masked = batch.tokens[t] == model_.spec_.mask_token;
      factor.mutable_data_ptr<float>()[t] = is_masked ? 0.0f : 0.88f / (1 - masked[s] / count[s]);
    }
    x_TD = x_TD.to(at::kFloat).mul(factor).to(model_.dtype_);
  }

  // Every rank looks up its own rows; the others give zeros, so the sum over ranks is exact.
  Result<Tensor> look_up(const Tensor& ids) const {
    Tensor x_TD = empty({tokens_, model_.spec_.hidden});
    const int64_t first = model_.place_.tp_rank * model_.local_vocab();
    if (model_.embedding_.defined())
      kernels::embedding(model_.embedding_, ids, first, x_TD);
    else
      kernels::embedding_quant(model_.quant_embedding_, ids, first, x_TD);
    if (model_.tp() == 1) return x_TD;
    std::vector<Tensor> parts{x_TD.to(at::kFloat)};
    TESSERA_RETURN_IF_ERROR(sum_over_ranks(parts));
    return parts[0].to(model_.dtype_);
  }

  // This rank's part of the output projection, float32 [T, D].
  Tensor attention(const Tensor& x_TD, const ServedLayer& layer, size_t l) const {
    if (model_.spec_.latent) return latent_attention(x_TD, layer, l);
    int64_t heads = model_.local_heads(), kv_heads = model_.local_kv_heads(), head_dim = model_.spec_.head_dim;
    Tensor qkv = empty({tokens_, layer.qkv.n()});
    layer.qkv.apply(x_TD, qkv);
    for (const LoraRows& own : adapted_) {
      const LoraLayer& lora = own.adapter->layers[l];
      const int64_t q = heads * head_dim, kv = kv_heads * head_dim;
      add_low_rank(lora.q, x_TD, own.rows, qkv.narrow(1, 0, q));
      add_low_rank(lora.k, x_TD, own.rows, qkv.narrow(1, q, kv));
      add_low_rank(lora.v, x_TD, own.rows, qkv.narrow(1, q + kv, kv));
    }
    auto part = [&](int64_t first, int64_t count) {
      return qkv.as_strided({tokens_, count, head_dim}, {qkv.size(1), head_dim, 1}, first * head_dim);
    };
    Tensor q_THE = part(0, heads), k_TKE = part(heads, kv_heads), v_TKE = part(heads + kv_heads, kv_heads),
           rstd;
    if (model_.spec_.qk_norm) {
      kernels::rms_norm(q_THE, layer.q_norm, model_.spec_.norm_eps, q_THE, rstd);
      kernels::rms_norm(k_TKE, layer.k_norm, model_.spec_.norm_eps, k_TKE, rstd);
    }
    if (model_.spec_.rotary) {
      kernels::rope(q_THE, positions_, model_.rope_);
      kernels::rope(k_TKE, positions_, model_.rope_);
    }
    kernels::write_kv(k_TKE, v_TKE, slot_, cache_.layers[l]);
    Tensor out_THE = empty(q_THE.sizes());
    const int64_t window = model_.spec_.window(model_.place_.layers.first + static_cast<int64_t>(l));
    kernels::paged_attention(q_THE, cache_.layers[l], sequence_, seen_, block_table_,
                             1.0 / std::sqrt(static_cast<double>(head_dim)), out_THE,
                             {.window = window, .sinks = layer.sinks});
    const Tensor gathered = out_THE.view({tokens_, heads * head_dim});
    Tensor projected = layer.o.apply(gathered);
    for (const LoraRows& own : adapted_) add_low_rank(own.adapter->layers[l].o, gathered, own.rows, projected);
    return projected;
  }

  // The same where the cache holds latent vectors, R elements and the P rotated ones that all heads share. A
  // head's query meets the latent vector through its part of kv_b for keys; what it gathers from latent
  // vectors becomes a value through its part for values.
  Tensor latent_attention(const Tensor& x_TD, const ServedLayer& layer, size_t l) const {
    const LatentSpec& s = *model_.spec_.latent;
    const LatentLayer& latent = layer.latent;
    const int64_t heads = model_.local_heads(), width = s.kv_rank + s.rope_dim, nope = heads * s.nope_dim;
    const Tensor q = latent_queries(x_TD, layer);
    Tensor q_rope = q.as_strided({tokens_, heads, s.rope_dim}, {q.size(1), s.rope_dim, 1}, nope);
    kernels::rope(q_rope, positions_, model_.rope_);
    write_latent(x_TD, layer, l);

    Tensor query = empty({tokens_, heads, width}), gathered_THR = empty({tokens_, heads, s.kv_rank});
    query.narrow(2, s.kv_rank, s.rope_dim).copy_(q_rope);
    for (int64_t h = 0; h < heads; ++h) {
      Tensor met = query.select(1, h).narrow(1, 0, s.kv_rank);
      kernels::gemm_packed(q.narrow(1, h * s.nope_dim, s.nope_dim), latent.key_up[static_cast<size_t>(h)], met);
    }
    const double scale = s.score_factor / std::sqrt(static_cast<double>(s.nope_dim + s.rope_dim));
    // The first token has no hidden state in front, so that a multi-token-prediction layer has no key of it.
    const int64_t first = l < model_.layers_.size() ? 0 : 1;
    kernels::paged_attention(query, cache_.layers[l], sequence_, seen_, block_table_, scale, gathered_THR,
                             {.first = first});
    Tensor out = empty({tokens_, heads * s.v_dim});
    for (int64_t h = 0; h < heads; ++h) {
      Tensor value = out.narrow(1, h * s.v_dim, s.v_dim);
      kernels::gemm_packed(gathered_THR.select(1, h), latent.value_up[static_cast<size_t>(h)], value);
    }
    return layer.o.apply(out);
  }

  void write_latent(const Tensor& x_TD, const ServedLayer& layer, size_t l) const {
    const LatentSpec& s = *model_.spec_.latent;
    Tensor kv = empty({tokens_, s.kv_rank + s.rope_dim}), rstd;
    layer.latent.kv_a.apply(x_TD, kv);
    Tensor kv_TR = kv.narrow(1, 0, s.kv_rank), k_rope = kv.narrow(1, s.kv_rank, s.rope_dim).unsqueeze(1);
    kernels::rms_norm(kv_TR, layer.latent.kv_a_norm, kLatentNormEps, kv_TR, rstd);
    kernels::rope(k_rope, positions_, model_.rope_);
    kernels::write_kv(kv.unsqueeze(1), {}, slot_, cache_.layers[l]);
  }

  Tensor latent_queries(const Tensor& x_TD, const ServedLayer& layer) const {
    const LatentLayer& latent = layer.latent;
    Tensor q = empty({tokens_, layer.qkv.n()}), rstd;
    if (latent.q_a.n() == 0) {
      layer.qkv.apply(x_TD, q);
      return q;
    }
    Tensor low = empty({tokens_, latent.q_a.n()});
    latent.q_a.apply(x_TD, low);
    kernels::rms_norm(low, latent.q_a_norm, kLatentNormEps, low, rstd);
    layer.qkv.apply(low, q);
    return q;
  }

  // This rank's part of the FFN, float32 [T, D].
  Result<Tensor> feed_forward(const Tensor& x_TD, const ServedLayer& layer, size_t l) const {
    if (layer.router.n() > 0) return experts(x_TD, layer);
    if (adapted_.empty()) return layer.ffn.apply(x_TD);
    return layer.ffn.apply(
        x_TD, {.gate_up =
                   [&](Tensor& gate_up) {
                     const int64_t width = gate_up.size(1) / 2;
                     for (const LoraRows& own : adapted_) {
                       const LoraLayer& lora = own.adapter->layers[l];
                       add_low_rank(lora.gate, x_TD, own.rows, gate_up.narrow(1, 0, width));
                       add_low_rank(lora.up, x_TD, own.rows, gate_up.narrow(1, width, width));
                     }
                   },
               .down =
                   [&](const Tensor& act, Tensor& out) {
                     for (const LoraRows& own : adapted_)
                       add_low_rank(own.adapter->layers[l].down, act.to(model_.dtype_), own.rows, out);
                   }});
  }

  // Rows sorted by expert run through all experts at once; each token then combines its rows, block by block.
  Result<Tensor> experts(const Tensor& x_TD, const ServedLayer& layer) const {
    const MoeSpec& moe = model_.spec_.moe;
    Tensor expert = empty({tokens_, moe.top_k}, at::kInt), weight = empty({tokens_, moe.top_k}, at::kFloat);
    route(x_TD, layer, expert, weight);
    const Sorted sorted(expert, moe.experts);
    Tensor rows = empty({expert.numel(), model_.spec_.hidden});
    kernels::gather_rows(x_TD, sorted.token, rows);
    TESSERA_ASSIGN_OR_RETURN(std::vector<Tensor> partial, own_experts(rows, sorted.first, layer));
    for (Tensor& rows_ND : partial) {
      Tensor y_TD = empty({tokens_, model_.spec_.hidden}, at::kFloat);
      kernels::combine(rows_ND, sorted.position, weight, y_TD);
      rows_ND = y_TD;
    }
    if (layer.shared) add_shared(x_TD, *layer.shared, partial);
    tree_sum(partial);
    return partial[0];
  }

  void route(const Tensor& x_TD, const ServedLayer& layer, Tensor& expert, Tensor& weight) const {
    const MoeSpec& moe = model_.spec_.moe;
    Tensor logits = empty({tokens_, moe.experts}, at::kFloat);
    layer.router.apply(x_TD, logits);
    if (model_.spec_.routing)
      return kernels::route_groups(logits, layer.router_correction, *model_.spec_.routing, expert, weight);
    Tensor probabilities = at::empty_like(logits);
    kernels::route(logits, moe.top_k, moe.normalize_top_k, probabilities, expert, weight);
  }

  // Block by block, so that the sums do not depend on the degree of tensor parallelism.
  void add_shared(const Tensor& x_TD, const FeedForward& shared, std::vector<Tensor>& partial) const {
    const int64_t all[] = {0, tokens_};
    const std::vector<Tensor> parts = shared.apply_experts(x_TD, all);
    for (size_t block = 0; block < partial.size(); ++block) kernels::add_into(partial[block], parts[block]);
  }

  // What the experts make of rows sorted by them, block by block; on this rank, or wherever they are. No
  // `first`: no rows.
  Result<std::vector<Tensor>> own_experts(const Tensor& rows, std::vector<int64_t> first,
                                          const ServedLayer& layer) const {
    if (!spreads_experts(layer)) return layer.ffn.apply_experts(rows, first);
    first.resize(static_cast<size_t>(model_.spec_.moe.experts) + 1, 0);
    TESSERA_ASSIGN_OR_RETURN(auto exchange, ExpertExchange::plan(*model_.groups_.experts, first));
    TESSERA_ASSIGN_OR_RETURN(Tensor received, exchange.dispatch(rows));
    std::vector<Tensor> partial;
    if (received.size(0) > 0) partial = layer.ffn.apply_experts(received, exchange.first());
    const auto blocks = static_cast<size_t>(model_.tp_blocks_ / model_.tp());
    partial.resize(blocks, empty({0, model_.spec_.hidden}, at::kFloat));
    for (Tensor& block : partial) {
      TESSERA_ASSIGN_OR_RETURN(block, exchange.collect(block));
    }
    return partial;
  }

  // x += the sum of all ranks' parts, rounded once.
  Status add_over_ranks(Tensor& x_TD, const Tensor& part) const {
    std::vector<Tensor> partial{part};
    TESSERA_RETURN_IF_ERROR(sum_over_ranks(partial));
    Tensor sum = at::empty_like(x_TD);
    kernels::add_rounded(x_TD, partial[0], sum);
    x_TD = sum;
    return {};
  }

  // parts[0] of every rank, added by the upper levels of the tree.
  Status sum_over_ranks(std::vector<Tensor>& parts) const {
    if (model_.tp() == 1) return {};
    TESSERA_ASSIGN_OR_RETURN(Tensor all, gather(parts[0]));
    parts.clear();
    for (int64_t rank = 0; rank < model_.tp(); ++rank) parts.push_back(all.select(0, rank));
    tree_sum(parts);
    return {};
  }

  // [tp, ...] of every rank's contiguous tensor of equal shape.
  Result<Tensor> gather(const Tensor& mine) const {
    std::vector<int64_t> sizes = mine.sizes().vec();
    sizes.insert(sizes.begin(), model_.tp());
    Tensor all = empty(sizes, mine.scalar_type());
    TESSERA_RETURN_IF_ERROR(model_.groups_.tp->all_gather(tensor_bytes(mine), mutable_tensor_bytes(all)));
    return all;
  }

  Result<Tensor> logits(const Tensor& x_TD, const Tensor& wanted, const Norm& last) const {
    int64_t num_wanted = wanted.size(0), vocab = model_.spec_.vocab;
    if (num_wanted == 0) return empty({0, vocab}, at::kFloat);
    Tensor rows = empty({num_wanted, model_.spec_.hidden});
    kernels::gather_rows(x_TD, wanted, rows);
    Tensor local = empty({num_wanted, model_.head_.n()}, at::kFloat);
    model_.head_.apply(norm(rows, last), local);
    if (model_.tp() == 1) return local;
    Tensor padded = at::zeros({num_wanted, model_.local_vocab()}, local.options());
    padded.narrow(1, 0, local.size(1)).copy_(local);
    TESSERA_ASSIGN_OR_RETURN(Tensor all, gather(padded));
    return all.transpose(0, 1).reshape({num_wanted, -1}).narrow(1, 0, vocab).contiguous();
  }

  const ServedModel& model_;
  KvCache& cache_;
  int64_t tokens_;
  Tensor positions_, seen_, sequence_, slot_, block_table_;
  std::vector<LoraRows> adapted_;
};

kernels::KvShape ServedModel::kv_shape(int64_t block_tokens) const {
  return spec_.kv_shape(kv_type_, block_tokens, tp());
}

int64_t ServedModel::kv_bytes_per_token() const {
  const int64_t layers = place_.layers.last - place_.layers.first + (has_mtp() ? 1 : 0);
  return layers * kv_shape(16).block_bytes() / 16;
}

Result<KvCache> ServedModel::make_cache(int64_t blocks, int64_t block_tokens) const {
  if (block_tokens < 1 || block_tokens % 16 != 0)
    return invalid("KV blocks of {} tokens; use a multiple of 16", block_tokens);
  try {
    KvCache cache{.layers = {}, .block_tokens = block_tokens};
    for (int64_t layer = place_.layers.first; layer < place_.layers.last; ++layer)
      cache.layers.emplace_back(kv_shape(block_tokens), blocks);
    if (has_mtp()) cache.layers.emplace_back(kv_shape(block_tokens), blocks);
    return cache;
  } catch (const std::exception&) {
    return make_error(ErrorCode::resource_exhausted,
                      "no memory for a KV cache of {} tokens ({:.2f} GiB); use a smaller --kv-tokens",
                      blocks * block_tokens,
                      static_cast<double>(blocks * block_tokens * kv_bytes_per_token()) / (1 << 30));
  }
}

Status ServedModel::check_tokens(const StepBatch& batch) const {
  auto outside = [this](int64_t token) { return token < 0 || token >= spec_.vocab; };
  auto bad = std::find_if(batch.tokens.begin(), batch.tokens.end(), outside);
  if (bad == batch.tokens.end()) return {};
  return invalid("token {} is outside the vocabulary of {} tokens", *bad, spec_.vocab);
}

namespace {

// torch and the kernels throw; nothing of it leaves the server.
template <class Pass>
auto guarded_pass(const StepBatch& batch, const Pass& pass) -> decltype(pass()) {
  try {
    c10::InferenceMode no_gradients;
    return pass();
  } catch (const std::exception& failure) {
    return make_error(ErrorCode::internal, "forward pass of {} tokens: {}", batch.num_tokens(),
                      text_of(failure));
  }
}

// Tokens of the batch that stand behind another of their sequence, and the rows of those in front.
struct Followers {
  StepBatch batch;
  std::vector<int64_t> in_front;
};

Followers followers_of(const StepBatch& batch) {
  Followers out{.batch = {.block_table = batch.block_table, .max_blocks = batch.max_blocks}, .in_front = {}};
  for (size_t t = 1; t < batch.tokens.size(); ++t) {
    if (batch.sequence[t] != batch.sequence[t - 1]) continue;
    out.batch.tokens.push_back(batch.tokens[t]);
    out.batch.positions.push_back(batch.positions[t]);
    out.batch.sequence.push_back(batch.sequence[t]);
    out.batch.slot.push_back(batch.slot[t]);
    out.in_front.push_back(static_cast<int64_t>(t) - 1);
  }
  return out;
}

}  // namespace

Result<Tensor> ServedModel::forward(const StepBatch& batch, KvCache& cache) const {
  TESSERA_ASSIGN_OR_RETURN(PassRows rows, forward_rows(batch, cache));
  return rows.logits;
}

Result<PassRows> ServedModel::forward_rows(const StepBatch& batch, KvCache& cache) const {
  TESSERA_RETURN_IF_ERROR(check_tokens(batch));
  if (spec_.encoder)
    return invalid("this model is an encoder and continues no text; serve it with `tessera embed`");
  return guarded_pass(batch, [&]() -> Result<PassRows> {
    TESSERA_ASSIGN_OR_RETURN(PassRows rows, ForwardPass(*this, batch, cache).run(batch));
    if (!has_mtp() || batch.num_tokens() == 0) return rows;
    const Followers followers = followers_of(batch);
    if (followers.in_front.empty()) return rows;
    const Tensor in_front = rows.hidden.index_select(0, to_tensor(followers.in_front, at::kLong));
    TESSERA_RETURN_IF_ERROR(ForwardPass(*this, followers.batch, cache).note_ahead(followers.batch, in_front));
    return rows;
  });
}

Result<PassRows> ServedModel::predict_ahead(const StepBatch& batch, const Tensor& hidden,
                                            KvCache& cache) const {
  TESSERA_REQUIRE(has_mtp(), "no multi-token-prediction layer was loaded");
  TESSERA_RETURN_IF_ERROR(check_tokens(batch));
  return guarded_pass(batch, [&] { return ForwardPass(*this, batch, cache).ahead(batch, hidden); });
}

Result<Tensor> ServedModel::encode(const StepBatch& batch, KvCache& cache) const {
  TESSERA_RETURN_IF_ERROR(check_tokens(batch));
  return guarded_pass(batch, [&] { return ForwardPass(*this, batch, cache).hidden(batch); });
}

}  // namespace tessera::serve
