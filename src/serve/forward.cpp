#include <ATen/ops/arange.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>

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

// The fixed tree over a power of two of float32 parts; parts[0] holds the result.
void tree_sum(std::vector<Tensor>& parts) {
  for (size_t width = 1; width < parts.size(); width *= 2)
    for (size_t i = 0; i + width < parts.size(); i += 2 * width) kernels::add_into(parts[i], parts[i + width]);
}

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
    TESSERA_ASSIGN_OR_RETURN(Tensor x_TD, embed(to_tensor(batch.tokens, at::kLong)));
    for (size_t l = 0; l < model_.layers_.size(); ++l) {
      const auto& layer = model_.layers_[l];
      TESSERA_RETURN_IF_ERROR(add_over_blocks(x_TD, attention(norm(x_TD, layer.attention_norm), layer, l)));
      TESSERA_RETURN_IF_ERROR(add_over_blocks(x_TD, feed_forward(norm(x_TD, layer.ffn_norm), layer)));
    }
    return logits(x_TD, to_tensor(batch.wanted, at::kLong));
  }

 private:
  Tensor empty(at::IntArrayRef sizes, at::ScalarType dtype) const {
    return at::empty(sizes, model_.embedding_.options().dtype(dtype));
  }
  Tensor empty(at::IntArrayRef sizes) const { return empty(sizes, model_.dtype_); }

  Tensor project(const Tensor& x, const kernels::PackedWeight& weight) const {
    Tensor out = empty({x.size(0), weight.n()});
    kernels::gemm_packed(x, weight, out);
    return out;
  }

  Tensor norm(const Tensor& x, const Tensor& weight) const {
    Tensor y = at::empty_like(x), rstd;
    kernels::rms_norm(x, weight, model_.spec_.norm_eps, y, rstd);
    return y;
  }

  // Every rank looks up its own rows; the others give zeros, so the sum over ranks is exact.
  Result<Tensor> embed(const Tensor& ids) const {
    Tensor x_TD = empty({tokens_, model_.spec_.hidden});
    kernels::embedding(model_.embedding_, ids, model_.group_->rank() * model_.local_vocab(), x_TD);
    if (model_.tp() == 1) return x_TD;
    std::vector<Tensor> parts{x_TD.to(at::kFloat)};
    TESSERA_RETURN_IF_ERROR(sum_over_ranks(parts));
    return parts[0].to(model_.dtype_);
  }

  // Partial sums of the output projection, one for each tp block of this rank, float32 [T, D].
  std::vector<Tensor> attention(const Tensor& x_TD, const ServedModel::Layer& layer, size_t l) const {
    int64_t heads = model_.local_heads(), kv_heads = model_.local_kv_heads(), head_dim = model_.spec_.head_dim;
    Tensor qkv = project(x_TD, layer.qkv);
    auto part = [&](int64_t first, int64_t count) {
      return qkv.narrow(1, first * head_dim, count * head_dim).reshape({tokens_, count, head_dim}).contiguous();
    };
    Tensor q_THE = part(0, heads), k_TKE = part(heads, kv_heads), v_TKE = part(heads + kv_heads, kv_heads);
    if (model_.spec_.qk_norm) {
      q_THE = norm(q_THE.view({-1, head_dim}), layer.q_norm).view_as(q_THE);
      k_TKE = norm(k_TKE.view({-1, head_dim}), layer.k_norm).view_as(k_TKE);
    }
    kernels::rope(q_THE, positions_, model_.rope_);
    kernels::rope(k_TKE, positions_, model_.rope_);
    kernels::write_kv(k_TKE, v_TKE, slot_, cache_.k[l], cache_.v[l]);
    Tensor out_THE = at::empty_like(q_THE);
    kernels::paged_attention(q_THE, cache_.k[l], cache_.v[l], sequence_, positions32_, block_table_,
                             1.0 / std::sqrt(static_cast<double>(head_dim)), out_THE);
    return row_parallel(out_THE.view({tokens_, heads * head_dim}), layer.o);
  }

  // x [N, own width] times each block's weight; column b of the width belongs to block b.
  std::vector<Tensor> row_parallel(const Tensor& x, const std::vector<kernels::PackedWeight>& blocks) const {
    std::vector<Tensor> partial;
    int64_t first = 0;
    for (const auto& weight : blocks) {
      Tensor& out = partial.emplace_back(empty({x.size(0), weight.n()}, at::kFloat));
      kernels::gemm_packed(x.narrow(1, first, weight.k()), weight, out);
      first += weight.k();
    }
    return partial;
  }

  std::vector<Tensor> gated(const Tensor& x_ND, const ServedModel::Ffn& ffn) const {
    Tensor gate_up = project(x_ND, ffn.gate_up);
    Tensor act = empty({x_ND.size(0), ffn.gate_up.n() / 2});
    kernels::silu_mul(gate_up, act);
    return row_parallel(act, ffn.down);
  }

  std::vector<Tensor> feed_forward(const Tensor& x_TD, const ServedModel::Layer& layer) const {
    return layer.router.n() == 0 ? gated(x_TD, layer.ffns[0]) : experts(x_TD, layer);
  }

  // Rows sorted by expert run expert by expert; each token then combines its rows, block by block.
  std::vector<Tensor> experts(const Tensor& x_TD, const ServedModel::Layer& layer) const {
    const MoeSpec& moe = model_.spec_.moe;
    Tensor logits = empty({tokens_, moe.experts}, at::kFloat), probabilities = at::empty_like(logits);
    kernels::gemm_packed(x_TD, layer.router, logits);
    Tensor expert = empty({tokens_, moe.top_k}, at::kInt), weight = empty({tokens_, moe.top_k}, at::kFloat);
    kernels::route(logits, moe.top_k, moe.normalize_top_k, probabilities, expert, weight);

    Tensor order = std::get<1>(at::sort(expert.view({-1}), /*stable=*/std::optional<bool>(true), 0, false));
    Tensor position = at::empty_like(order);
    position.scatter_(0, order, at::arange(order.size(0), order.options()));
    Tensor counts = at::bincount(expert.view({-1}), {}, moe.experts).cpu();
    Tensor rows = empty({order.size(0), model_.spec_.hidden});
    kernels::gather_rows(x_TD, order.div(moe.top_k, "floor"), rows);

    std::vector<Tensor> partial = run_experts(rows, counts, layer);
    for (Tensor& rows_ND : partial) {
      Tensor y_TD = empty({tokens_, model_.spec_.hidden}, at::kFloat);
      kernels::combine(rows_ND, position.view_as(expert), weight, y_TD);
      rows_ND = y_TD;
    }
    return partial;
  }

  std::vector<Tensor> run_experts(const Tensor& rows, const Tensor& counts,
                                  const ServedModel::Layer& layer) const {
    std::vector<Tensor> partial;
    for (size_t block = 0; block < layer.o.size(); ++block)
      partial.push_back(empty({rows.size(0), model_.spec_.hidden}, at::kFloat));
    auto count_of = counts.accessor<int64_t, 1>();
    int64_t first = 0;
    for (size_t expert = 0; expert < layer.ffns.size(); ++expert) {
      int64_t count = count_of[static_cast<int64_t>(expert)];
      if (count == 0) continue;
      auto out = gated(rows.narrow(0, first, count), layer.ffns[expert]);
      for (size_t block = 0; block < out.size(); ++block)
        partial[block].narrow(0, first, count).copy_(out[block]);
      first += count;
    }
    return partial;
  }

  // x += the sum of all blocks of all ranks, rounded once.
  Status add_over_blocks(Tensor& x_TD, std::vector<Tensor> partial) const {
    tree_sum(partial);
    partial.resize(1);
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
    TESSERA_RETURN_IF_ERROR(model_.group_->all_gather(tensor_bytes(mine), mutable_tensor_bytes(all)));
    return all;
  }

  Result<Tensor> logits(const Tensor& x_TD, const Tensor& wanted) const {
    int64_t num_wanted = wanted.size(0), vocab = model_.spec_.vocab;
    if (num_wanted == 0) return empty({0, vocab}, at::kFloat);
    Tensor rows = empty({num_wanted, model_.spec_.hidden});
    kernels::gather_rows(x_TD, wanted, rows);
    Tensor local = empty({num_wanted, model_.head_.n()}, at::kFloat);
    kernels::gemm_packed(norm(rows, model_.final_norm_), model_.head_, local);
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

int64_t ServedModel::kv_bytes_per_token() const {
  int64_t element = static_cast<int64_t>(c10::elementSize(dtype_));
  return 2 * spec_.layers * local_kv_heads() * spec_.head_dim * element;
}

Result<KvCache> ServedModel::make_cache(int64_t blocks, int64_t block_tokens) const {
  try {
    KvCache cache{.block_tokens = block_tokens};
    auto make = [&] {
      return at::zeros({blocks, block_tokens, local_kv_heads(), spec_.head_dim},
                       embedding_.options().dtype(dtype_));
    };
    for (int64_t layer = 0; layer < spec_.layers; ++layer) {
      cache.k.push_back(make());
      cache.v.push_back(make());
    }
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
