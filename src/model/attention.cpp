#include "model/attention.h"

#include <ATen/ops/empty_like.h>

#include <cmath>

#include "model/norm.h"
#include "model/parallel.h"

namespace tessera::model {
namespace {

double softmax_scale(const Context& context) {
  return 1 / std::sqrt(static_cast<double>(context.spec.head_dim));
}

// h * weight^T as heads: [T, heads, E].
Tensor project(const Context& context, const Tensor& h, const Tensor& weight) {
  Tensor out = make({h.size(0), weight.size(0)}, context.dtype());
  kernels::gemm_nt(h, weight, out);
  return out.view({h.size(0), -1, context.spec.head_dim});
}

// QK-norm when the model has it, then rotation; keeps what backward needs.
Tensor norm_and_rotate(const Context& context, const Batch& batch, Unit& unit, Role norm, Tensor x, Tensor& raw,
                       Tensor& rstd) {
  if (context.spec.qk_norm) {
    Normed normed = head_norm_forward(context, x, unit.weight(norm));
    raw = x;
    rstd = normed.rstd;
    x = normed.y;
  }
  kernels::rope(x, batch.positions, context.rope);
  return x;
}

Tensor unrotate_and_unnorm(Context& context, const Batch& batch, Unit& unit, Role norm, Tensor dx,
                           const Tensor& raw, const Tensor& rstd, const Tensor& gradient) {
  kernels::rope(dx, batch.positions, context.rope, true);
  if (!context.spec.qk_norm) return dx;
  return head_norm_backward(context, dx, raw, unit.weight(norm), rstd, unit.view(gradient, norm));
}

// Gradient of the projections' input: per block of heads q, k, v in turn, then the tree over blocks.
Tensor input_gradient(Context& context, Unit& unit, const Tensor& dq, const Tensor& dk, const Tensor& dv) {
  Tensor partial = sum_blocks(context, dq.size(0), context.spec.hidden, [&](int64_t block, Tensor& out) {
    bool first = true;
    for (auto [role, dy] : {std::pair{Role::q, &dq}, {Role::k, &dk}, {Role::v, &dv}}) {
      Tensor weight = unit.weight(role);
      int64_t width = weight.size(0) / context.local_blocks();
      kernels::gemm_nn(columns(*dy, block * width, width), rows(weight, block * width, width), out, !first);
      first = false;
    }
  });
  return reduce_scatter_tokens(context, std::move(partial));
}

}  // namespace

Tensor attention_forward(Context& context, Unit& unit, const Batch& batch, const Tensor& h,
                         AttentionSaved& saved) {
  Tensor all = gather_tokens(context, h);
  saved.h = h;
  saved.q = norm_and_rotate(context, batch, unit, Role::q_norm, project(context, all, unit.weight(Role::q)),
                            saved.q_raw, saved.q_rstd);
  saved.k = norm_and_rotate(context, batch, unit, Role::k_norm, project(context, all, unit.weight(Role::k)),
                            saved.k_raw, saved.k_rstd);
  saved.v = project(context, all, unit.weight(Role::v));
  saved.out = at::empty_like(saved.q);
  saved.lse = make_float({saved.q.size(0), saved.q.size(1)});
  kernels::attention(saved.q, saved.k, saved.v, batch.starts, softmax_scale(context), saved.out, saved.lse);
  return row_parallel(context, saved.out.view({saved.out.size(0), -1}), unit.weight(Role::o));
}

Tensor attention_backward(Context& context, Unit& unit, const Batch& batch, const Tensor& dy,
                          const AttentionSaved& saved, const Tensor& gradient) {
  Tensor dy_all = gather_tokens(context, dy), h_all = gather_tokens(context, saved.h);
  int64_t tokens = dy_all.size(0);
  Tensor do_weight = unit.view(gradient, Role::o);
  weight_gradient(dy_all, saved.out.view({tokens, -1}), context.chunks(), do_weight);

  Tensor dout = at::empty_like(saved.out), dout_flat = dout.view({tokens, -1});
  kernels::gemm_nn(dy_all, unit.weight(Role::o), dout_flat);
  Tensor dq = at::empty_like(saved.q), dk = at::empty_like(saved.k), dv = at::empty_like(saved.v);
  kernels::attention_backward(dout, saved.q, saved.k, saved.v, saved.out, saved.lse, batch.starts,
                              softmax_scale(context), dq, dk, dv);
  dq = unrotate_and_unnorm(context, batch, unit, Role::q_norm, dq, saved.q_raw, saved.q_rstd, gradient)
           .view({tokens, -1});
  dk = unrotate_and_unnorm(context, batch, unit, Role::k_norm, dk, saved.k_raw, saved.k_rstd, gradient)
           .view({tokens, -1});
  dv = dv.view({tokens, -1});
  for (auto [role, d] : {std::pair{Role::q, &dq}, {Role::k, &dk}, {Role::v, &dv}}) {
    Tensor dweight = unit.view(gradient, role);
    weight_gradient(*d, h_all, context.chunks(), dweight);
  }
  return input_gradient(context, unit, dq, dk, dv);
}

}  // namespace tessera::model
