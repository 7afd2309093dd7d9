#include "model/dense_ffn.h"

#include <ATen/ops/empty_like.h>

#include "model/parallel.h"

namespace tessera::model {

Tensor dense_forward(Context& context, Unit& unit, const Tensor& h, DenseSaved& saved) {
  Tensor all = gather_tokens(context, h), weight = unit.fused(Role::gate, Role::up);
  saved.h = h;
  saved.gate_up = make({all.size(0), weight.size(0)}, context.dtype());
  kernels::gemm_nt(all, weight, saved.gate_up);
  Tensor inner = make({all.size(0), weight.size(0) / 2}, context.dtype());
  kernels::silu_mul(saved.gate_up, inner);
  return row_parallel(context, inner, unit.weight(Role::down));
}

Tensor dense_backward(Context& context, Unit& unit, const Tensor& dy, const DenseSaved& saved,
                      const Tensor& gradient) {
  Tensor dy_all = gather_tokens(context, dy), h_all = gather_tokens(context, saved.h);
  int64_t tokens = dy_all.size(0), width = saved.gate_up.size(1) / 2;
  Tensor inner = make({tokens, width}, context.dtype());
  kernels::silu_mul(saved.gate_up, inner);  // cheaper to compute again than to keep
  Tensor ddown = unit.view(gradient, Role::down);
  weight_gradient(dy_all, inner, context.chunks(), ddown);

  Tensor& dinner = inner;
  kernels::gemm_nn(dy_all, unit.weight(Role::down), dinner);
  Tensor dgate_up = at::empty_like(saved.gate_up);
  kernels::silu_mul_backward(dinner, saved.gate_up, dgate_up);
  Tensor dweight = unit.fused_view(gradient, Role::gate, Role::up);
  weight_gradient(dgate_up, h_all, context.chunks(), dweight);

  Tensor gate = unit.weight(Role::gate), up = unit.weight(Role::up);
  Tensor partial = sum_blocks(context, tokens, context.spec.hidden, [&](int64_t block, Tensor& out) {
    gate_up_input_gradient(dgate_up, gate, up, block, context.local_blocks(), out);
  });
  return reduce_scatter_tokens(context, std::move(partial));
}

void gate_up_input_gradient(const Tensor& dgate_up, const Tensor& gate, const Tensor& up, int64_t block,
                            int64_t blocks, Tensor& out) {
  int64_t width = gate.size(0), part = width / blocks;
  kernels::gemm_nn(columns(dgate_up, block * part, part), rows(gate, block * part, part), out);
  kernels::gemm_nn(columns(dgate_up, width + block * part, part), rows(up, block * part, part), out, true);
}

}  // namespace tessera::model
