#include "model/block.h"

#include <ATen/ops/empty_like.h>

#include "model/norm.h"

namespace tessera::model {
namespace {

// a + b, rounded once to the dtype of a.
Tensor residual(const Tensor& a, const Tensor& b) {
  Tensor out = at::empty_like(a);
  kernels::add_rounded(a, b, out);
  return out;
}

}  // namespace

Block::Block(Context& context, Unit& dense, Unit* experts, GradientMeter& meter)
    : context_(context), dense_(dense), experts_(experts), dense_sink_(context, dense, meter) {
  if (experts) expert_sink_.emplace(context, *experts, meter);
}

void Block::prefetch() {
  dense_.prefetch();
  if (experts_) experts_->prefetch();
}
void Block::acquire() {
  dense_.acquire();
  if (experts_) experts_->acquire();
}
void Block::release() {
  dense_.release();
  if (experts_) experts_->release();
}

Tensor Block::run(const Batch& batch, const Tensor& x, BlockSaved& saved, MoeStatistics& statistics) {
  saved.x = x;
  Normed first = norm_forward(context_, x, dense_.weight(Role::attention_norm));
  saved.attention_rstd = first.rstd;
  saved.middle = residual(x, attention_forward(context_, dense_, batch, first.y, saved.attention));
  Normed second = norm_forward(context_, saved.middle, dense_.weight(Role::ffn_norm));
  saved.ffn_rstd = second.rstd;
  Tensor y = experts_ ? moe_forward(context_, dense_, *experts_, second.y, saved.moe, statistics)
                      : dense_forward(context_, dense_, second.y, saved.dense);
  return residual(saved.middle, y);
}

Tensor Block::forward(const Batch& batch, const Tensor& x, BlockSaved& saved, MoeStatistics& statistics) {
  acquire();
  Tensor y = run(batch, x, saved, statistics);
  release();
  if (context_.layout.recompute == Recompute::full) {
    saved = BlockSaved();
    saved.x = x;
  }
  return y;
}

Tensor Block::ffn_backward(const Tensor& dy, BlockSaved& saved, const Tensor& gradient, bool last) {
  if (!experts_) return dense_backward(context_, dense_, dy, saved.dense, gradient);
  Tensor expert_gradient = expert_sink_->begin();
  Tensor dh = moe_backward(context_, dense_, *experts_, dy, saved.moe, gradient, expert_gradient);
  expert_sink_->end(std::move(expert_gradient), last);
  return dh;
}

Tensor Block::backward(const Batch& batch, const Tensor& dy, BlockSaved& saved, bool last) {
  acquire();
  if (context_.layout.recompute == Recompute::full) {
    MoeStatistics counted_in_forward;
    run(batch, saved.x, saved, counted_in_forward);
  }
  at::ScalarType dtype = context_.dtype();
  Tensor gradient = dense_sink_.begin();
  Tensor dh = to_dtype(ffn_backward(dy, saved, gradient, last), dtype);
  Tensor dmiddle = residual(dy, norm_backward(context_, dh, saved.middle, dense_.weight(Role::ffn_norm),
                                              saved.ffn_rstd, dense_.view(gradient, Role::ffn_norm)));
  dh = to_dtype(attention_backward(context_, dense_, batch, dmiddle, saved.attention, gradient), dtype);
  Tensor dx =
      residual(dmiddle, norm_backward(context_, dh, saved.x, dense_.weight(Role::attention_norm),
                                      saved.attention_rstd, dense_.view(gradient, Role::attention_norm)));
  release();
  dense_sink_.end(std::move(gradient), last);
  saved = BlockSaved();
  return dx;
}

}  // namespace tessera::model
