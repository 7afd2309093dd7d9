#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
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
        positions32_(positions_.to(at::kInt)),
        sequence_(to_tensor(batch.sequence, at::kInt)),
        slot_(to_tensor(batch.slot, at::kLong)),
        block_table_(to_tensor(batch.block_table, at::kInt).view({batch.num_sequences(), batch.max_blocks})) {}

  Result<Tensor> run(const StepBatch& batch) {
    if (tokens_ == 0) return help_with_experts();
    TESSERA_ASSIGN_OR_RETURN(Tensor x_TD, enter_stage(batch));
    for (size_t l = 0; l < model_.layers_.size(); ++l) {
      const auto& layer = model_.layers_[l];
      TESSERA_RETURN_IF_ERROR(add_over_ranks(x_TD, attention(norm(x_TD, layer.attention_norm), layer, l)));
      TESSERA_ASSIGN_OR_RETURN(Tensor y_TD, feed_forward(norm(x_TD, layer.ffn_norm), layer));
      TESSERA_RETURN_IF_ERROR(add_over_ranks(x_TD, y_TD));
    }
    if (model_.place_.last_stage()) return logits(x_TD, to_tensor(batch.wanted, at::kLong));
    TESSERA_RETURN_IF_ERROR(model_.groups_.world->send(model_.place_.next, tensor_bytes(x_TD)));
    return Tensor();
  }

 private:
  // Embeds, or takes over from the stage before.
  Result<Tensor> enter_stage(const StepBatch& batch) const {
    if (model_.place_.first_stage()) return embed(to_tensor(batch.tokens, at::kLong));
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

  bool spreads_experts(const ServedModel::Layer& layer) const {
    return layer.router.n() > 0 && model_.groups_.experts != nullptr;
  }

  Tensor empty(at::IntArrayRef sizes, at::ScalarType dtype) const {
    return at::empty(sizes, at::TensorOptions().dtype(dtype));
  }
  Tensor empty(at::IntArrayRef sizes) const { return empty(sizes, model_.dtype_); }

  Tensor norm(const Tensor& x, const Tensor& weight) const {
    Tensor y = at::empty_like(x), rstd;
    kernels::rms_norm(x, weight, model_.spec_.norm_eps, y, rstd);
    return y;
  }

  // Every rank looks up its own rows; the others give zeros, so the sum over ranks is exact.
  Result<Tensor> embed(const Tensor& ids) const {
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
  Tensor attention(const Tensor& x_TD, const ServedModel::Layer& layer, size_t l) const {
    int64_t heads = model_.local_heads(), kv_heads = model_.local_kv_heads(), head_dim = model_.spec_.head_dim;
    Tensor qkv = empty({tokens_, layer.qkv.n()});
    layer.qkv.apply(x_TD, qkv);
    auto part = [&](int64_t first, int64_t count) {
      return qkv.as_strided({tokens_, count, head_dim}, {qkv.size(1), head_dim, 1}, first * head_dim);
    };
    Tensor q_THE = part(0, heads), k_TKE = part(heads, kv_heads), v_TKE = part(heads + kv_heads, kv_heads),
           rstd;
    if (model_.spec_.qk_norm) {
      kernels::rms_norm(q_THE, layer.q_norm, model_.spec_.norm_eps, q_THE, rstd);
      kernels::rms_norm(k_TKE, layer.k_norm, model_.spec_.norm_eps, k_TKE, rstd);
    }
    kernels::rope(q_THE, positions_, model_.rope_);
    kernels::rope(k_TKE, positions_, model_.rope_);
    kernels::write_kv(k_TKE, v_TKE, slot_, cache_.layers[l]);
    Tensor out_THE = empty(q_THE.sizes());
    kernels::paged_attention(q_THE, cache_.layers[l], sequence_, positions32_, block_table_,
                             1.0 / std::sqrt(static_cast<double>(head_dim)), out_THE);
    return layer.o.apply(out_THE.view({tokens_, heads * head_dim}));
  }

  // This rank's part of the FFN, float32 [T, D].
  Result<Tensor> feed_forward(const Tensor& x_TD, const ServedModel::Layer& layer) const {
    if (layer.router.n() == 0) return layer.ffn.apply(x_TD);
    return experts(x_TD, layer);
  }

  // Rows sorted by expert run through all experts at once; each token then combines its rows, block by block.
  Result<Tensor> experts(const Tensor& x_TD, const ServedModel::Layer& layer) const {
    const MoeSpec& moe = model_.spec_.moe;
    Tensor logits = empty({tokens_, moe.experts}, at::kFloat), probabilities = at::empty_like(logits);
    layer.router.apply(x_TD, logits);
    Tensor expert = empty({tokens_, moe.top_k}, at::kInt), weight = empty({tokens_, moe.top_k}, at::kFloat);
    kernels::route(logits, moe.top_k, moe.normalize_top_k, probabilities, expert, weight);

    const Sorted sorted(expert, moe.experts);
    Tensor rows = empty({expert.numel(), model_.spec_.hidden});
    kernels::gather_rows(x_TD, sorted.token, rows);
    TESSERA_ASSIGN_OR_RETURN(std::vector<Tensor> partial, own_experts(rows, sorted.first, layer));
    for (Tensor& rows_ND : partial) {
      Tensor y_TD = empty({tokens_, model_.spec_.hidden}, at::kFloat);
      kernels::combine(rows_ND, sorted.position, weight, y_TD);
      rows_ND = y_TD;
    }
    tree_sum(partial);
    return partial[0];
  }

  // What the experts make of rows sorted by them, block by block; on this rank, or wherever they are. No
  // `first`: no rows.
  Result<std::vector<Tensor>> own_experts(const Tensor& rows, std::vector<int64_t> first,
                                          const ServedModel::Layer& layer) const {
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

  Result<Tensor> logits(const Tensor& x_TD, const Tensor& wanted) const {
    int64_t num_wanted = wanted.size(0), vocab = model_.spec_.vocab;
    if (num_wanted == 0) return empty({0, vocab}, at::kFloat);
    Tensor rows = empty({num_wanted, model_.spec_.hidden});
    kernels::gather_rows(x_TD, wanted, rows);
    Tensor local = empty({num_wanted, model_.head_.n()}, at::kFloat);
    model_.head_.apply(norm(rows, model_.final_norm_), local);
    if (model_.tp() == 1) return local;
    Tensor padded = at::zeros({num_wanted, model_.local_vocab()}, local.options());
    padded.narrow(1, 0, local.size(1)).copy_(local);
    TESSERA_ASSIGN_OR_RETURN(Tensor all, gather(padded));
    return all.transpose(0, 1).reshape({num_wanted, -1}).narrow(1, 0, vocab).contiguous();
  }

  const ServedModel& model_;
  KvCache& cache_;
  int64_t tokens_;
  Tensor positions_, positions32_, sequence_, slot_, block_table_;
};

kernels::KvShape ServedModel::kv_shape(int64_t block_tokens) const {
  return {
      .type = kv_type_, .block_tokens = block_tokens, .heads = local_kv_heads(), .head_dim = spec_.head_dim};
}

int64_t ServedModel::kv_bytes_per_token() const {
  return (place_.layers.last - place_.layers.first) * kv_shape(16).block_bytes() / 16;
}

Result<KvCache> ServedModel::make_cache(int64_t blocks, int64_t block_tokens) const {
  if (block_tokens < 1 || block_tokens % 16 != 0)
    return invalid("KV blocks of {} tokens; use a multiple of 16", block_tokens);
  try {
    KvCache cache{.layers = {}, .block_tokens = block_tokens};
    for (int64_t layer = place_.layers.first; layer < place_.layers.last; ++layer)
      cache.layers.emplace_back(kv_shape(block_tokens), blocks);
    return cache;
  } catch (const std::exception&) {
    return make_error(ErrorCode::resource_exhausted,
                      "no memory for a KV cache of {} tokens ({:.2f} GiB); use a smaller --kv-tokens",
                      blocks * block_tokens,
                      static_cast<double>(blocks * block_tokens * kv_bytes_per_token()) / (1 << 30));
  }
}

Result<Tensor> ServedModel::forward(const StepBatch& batch, KvCache& cache) const {
  auto outside = [this](int64_t token) { return token < 0 || token >= spec_.vocab; };
  auto bad = std::find_if(batch.tokens.begin(), batch.tokens.end(), outside);
  if (bad != batch.tokens.end())
    return invalid("token {} is outside the vocabulary of {} tokens", *bad, spec_.vocab);
  try {
    c10::InferenceMode no_gradients;
    return ForwardPass(*this, batch, cache).run(batch);
  } catch (const std::exception& failure) {
    return make_error(ErrorCode::internal, "forward pass of {} tokens: {}", batch.num_tokens(),
                      text_of(failure));
  }
}

}  // namespace tessera::serve
