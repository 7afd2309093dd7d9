#include "model/ends.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "model/failure.h"
#include "model/norm.h"
#include "model/parallel.h"
#include "model/tree.h"

namespace tessera::model {
namespace {

int64_t rows_per_place(const Context& context) {
  return padded_vocab(context.spec.vocab, context.work.tp_blocks) / context.layout.tp;
}
int64_t first_row(const Context& context) {
  return context.at.tp * rows_per_place(context);
}

// Columns [first, first + count) of this rank's logits that block b of its blocks holds; the last ones may be
// short or empty.
Extent block_columns(const Context& context, int64_t block, int64_t local_rows) {
  int64_t each = rows_per_place(context) / context.local_blocks();
  int64_t first = std::min(block * each, local_rows);
  return {{first}, {std::min(each, local_rows - first)}};
}

}  // namespace

Tensor Embedding::forward(const Batch& batch) {
  int64_t tp = context_.layout.tp, tokens = context_.tokens(), mine = context_.local_tokens(),
          width = context_.spec.hidden;
  unit_.acquire();
  Tensor part = make({tokens, width}, context_.dtype());
  kernels::embedding(unit_.weight(Role::embedding), batch.tokens, first_row(context_), part);
  unit_.release();
  if (tp == 1) return part;
  // Rows of this rank's tokens from every place, then the owner's is taken: adding zeros would change -0.
  Tensor all = make({tp * mine, width}, context_.dtype());
  std::vector<Bytes> out;
  std::vector<MutableBytes> in;
  for (int64_t place = 0; place < tp; ++place) {
    out.push_back(bytes(rows(part, place * mine, mine)));
    in.push_back(mutable_bytes(rows(all, place * mine, mine)));
  }
  check(context_.groups.tp->all_to_all(out, in));
  Tensor index = make({mine}, at::kLong), x = make({mine, width}, context_.dtype());
  const int64_t* token = batch.tokens.const_data_ptr<int64_t>() + context_.at.tp * mine;
  for (int64_t t = 0; t < mine; ++t)
    index.data_ptr<int64_t>()[t] = token[t] / rows_per_place(context_) * mine + t;
  kernels::gather_rows(all, index, x);
  return x;
}

void Embedding::backward(const Batch& batch, const Tensor& dx, bool last) {
  Tensor dx_all = gather_tokens(context_, dx);
  int64_t chunks = context_.chunks(), length = dx_all.size(0) / chunks;
  Tensor gradient = sink_.begin(), dweight = unit_.view(gradient, Role::embedding);
  tree_sum(chunks, dweight, [&](int64_t chunk, Tensor& leaf) {
    leaf.zero_();
    kernels::embedding_backward(rows(dx_all, chunk * length, length),
                                rows(batch.tokens, chunk * length, length), first_row(context_), leaf);
  });
  sink_.end(std::move(gradient), last);
}

namespace {

// Softmax statistics of [T, Vl] logits whose vocabulary is cut over tp and, in exact mode, over blocks.
struct SoftmaxSums {
  Tensor max, sum, target;  // float32 [T]
};

// Largest logit of each token over all of tp, exactly.
Tensor global_max(Context& context, const Tensor& logits) {
  Tensor max = at::full({logits.size(0)}, -std::numeric_limits<float>::infinity(),
                        at::TensorOptions().dtype(at::kFloat));
  if (logits.size(1) > 0) kernels::row_max(logits, max);
  check(context.groups.tp->all_reduce_max({max.data_ptr<float>(), static_cast<size_t>(max.numel())}));
  return max;
}

// Sum of exponentials: a node per block, then the tree over all blocks of all places.
Tensor global_sum(Context& context, const Tensor& logits, const Tensor& max) {
  int64_t tokens = logits.size(0), blocks = context.local_blocks();
  Tensor sums = make_zeros({blocks, tokens}, at::kFloat);
  for (int64_t block = 0; block < blocks; ++block) {
    Extent range = block_columns(context, block, logits.size(1));
    if (range.size[0] == 0) continue;
    Tensor sum = sums.select(0, block);
    kernels::row_sum_exp(columns(logits, range.offset[0], range.size[0]), max, sum);
  }
  Tensor all = make_float({context.layout.tp * blocks, tokens});
  if (context.layout.tp == 1)
    all = sums;
  else
    check(context.groups.tp->all_gather(bytes(sums), mutable_bytes(all)));
  std::vector<Tensor> values;
  for (int64_t i = 0; i < all.size(0); ++i) values.push_back(all.select(0, i));
  return tree_sum(std::move(values));
}

// Logit of each token's target: one place has it, the maximum with -infinity finds it.
Tensor target_logits(Context& context, const Tensor& logits, const Batch& batch) {
  int64_t tokens = logits.size(0), width = logits.size(1), first = first_row(context);
  Tensor target =
      at::full({tokens}, -std::numeric_limits<float>::infinity(), at::TensorOptions().dtype(at::kFloat));
  const int64_t* wanted = batch.targets.const_data_ptr<int64_t>();
  for (int64_t t = 0; t < tokens; ++t) {
    int64_t column = wanted[t] - first;
    if (column >= 0 && column < width)
      target.data_ptr<float>()[t] = logits.const_data_ptr<float>()[t * width + column];
  }
  check(context.groups.tp->all_reduce_max({target.data_ptr<float>(), static_cast<size_t>(tokens)}));
  return target;
}

void add_losses(const Context& context, const Batch& batch, const SoftmaxSums& sums, LossSum& loss) {
  if (context.at.tp != 0) return;
  for (int64_t t = 0; t < sums.max.numel(); ++t) {
    if (batch.targets.const_data_ptr<int64_t>()[t] == data::kNoTarget) continue;
    double max = sums.max.const_data_ptr<float>()[t], sum = sums.sum.const_data_ptr<float>()[t];
    loss.nats.add(std::log(sum) + max - static_cast<double>(sums.target.const_data_ptr<float>()[t]));
    ++loss.tokens;
  }
}

Tensor token_scale(const Batch& batch, int64_t valid_tokens) {
  Tensor scale = make_float({batch.targets.size(0)});
  for (int64_t t = 0; t < scale.numel(); ++t) {
    bool valid = batch.targets.const_data_ptr<int64_t>()[t] != data::kNoTarget;
    scale.data_ptr<float>()[t] = valid ? 1.0f / static_cast<float>(valid_tokens) : 0.0f;
  }
  return scale;
}

}  // namespace

Tensor Head::run(const Batch& batch, const Tensor& x, int64_t valid_tokens, bool last, LossSum& loss) {
  norm_.acquire();
  unit_.acquire();
  Normed normed = norm_forward(context_, x, norm_.weight(Role::final_norm));
  Tensor h_all = gather_tokens(context_, normed.y), weight = unit_.weight(role());
  Tensor logits = make_float({h_all.size(0), weight.size(0)});
  kernels::gemm_nt(h_all, weight, logits);
  SoftmaxSums sums;
  sums.max = global_max(context_, logits);
  sums.sum = global_sum(context_, logits, sums.max);
  sums.target = target_logits(context_, logits, batch);
  add_losses(context_, batch, sums, loss);
  Tensor dx;
  if (valid_tokens > 0) {
    kernels::cross_entropy_gradient(logits, sums.max, sums.sum, batch.targets, first_row(context_),
                                    token_scale(batch, valid_tokens));
    dx = backward(h_all, logits, x, normed.rstd, last);
  }
  unit_.release();
  norm_.release();
  return dx;
}

Tensor Head::backward(const Tensor& h_all, Tensor& logits, const Tensor& x, const Tensor& rstd, bool last) {
  Tensor dlogits = to_dtype(logits, context_.dtype());
  Tensor gradient = sink_.begin(), dweight = unit_.view(gradient, role());
  weight_gradient(dlogits, h_all, context_.chunks(), dweight);
  sink_.end(std::move(gradient), last);

  Tensor weight = unit_.weight(role());
  Tensor partial = sum_blocks(context_, h_all.size(0), context_.spec.hidden, [&](int64_t block, Tensor& out) {
    Extent range = block_columns(context_, block, weight.size(0));
    if (range.size[0] == 0)
      out.zero_();
    else
      kernels::gemm_nn(columns(dlogits, range.offset[0], range.size[0]),
                       rows(weight, range.offset[0], range.size[0]), out);
  });
  Tensor dh = to_dtype(reduce_scatter_tokens(context_, std::move(partial)), context_.dtype());
  gradient = norm_sink_.begin();
  Tensor dx = norm_backward(context_, dh, x, norm_.weight(Role::final_norm), rstd,
                            norm_.view(gradient, Role::final_norm));
  norm_sink_.end(std::move(gradient), last);
  return dx;
}

}  // namespace tessera::model
