#include "model/norm.h"

#include <ATen/ops/empty_like.h>

#include "model/failure.h"
#include "model/parallel.h"
#include "model/tree.h"

namespace tessera::model {

Normed norm_forward(const Context& context, const Tensor& x, const Tensor& weight) {
  Normed out{at::empty_like(x), make_float({x.size(0)})};
  kernels::rms_norm(x, weight, context.spec.norm_eps, out.y, out.rstd);
  return out;
}

Tensor norm_backward(Context& context, const Tensor& dy, const Tensor& x, const Tensor& weight,
                     const Tensor& rstd, Tensor dweight) {
  int64_t chunks = context.local_chunks(), length = x.size(0) / chunks;
  Tensor dx = at::empty_like(x);
  Tensor leaves = make_zeros({chunks, weight.size(0)}, at::kFloat);
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    auto part = [&](const Tensor& t) { return rows(t, chunk * length, length); };
    Tensor dx_part = part(dx), leaf = leaves.select(0, chunk);
    kernels::rms_norm_backward(part(dy), part(x), weight, part(rstd), dx_part, leaf);
  }
  dweight.copy_(sum_chunks_over_tp(context, leaves));
  return dx;
}

Normed head_norm_forward(const Context& context, const Tensor& x, const Tensor& weight) {
  Normed out = norm_forward(context, x.view({-1, x.size(2)}), weight);
  out.y = out.y.view(x.sizes());
  return out;
}

Tensor head_norm_backward(Context& context, const Tensor& dy, const Tensor& x, const Tensor& weight,
                          const Tensor& rstd, Tensor dweight) {
  int64_t tokens = x.size(0), heads = x.size(1), width = x.size(2);
  int64_t chunks = context.chunks(), blocks = context.local_blocks(), tp = context.layout.tp;
  int64_t length = tokens / chunks, block_heads = heads / blocks;
  Tensor dx = at::empty_like(x);
  Tensor leaves = make_zeros({chunks, blocks, width}, at::kFloat);
  Tensor rstd_by_head = rstd.view({tokens, heads});
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    for (int64_t block = 0; block < blocks; ++block) {
      // A block of heads is a strided part; the kernel wants plain rows.
      auto part = [&](const Tensor& t) {
        return t.narrow(0, chunk * length, length).narrow(1, block * block_heads, block_heads);
      };
      auto flat = [&](const Tensor& t) { return part(t).contiguous().view({-1, width}); };
      Tensor dx_part = make({length * block_heads, width}, x.scalar_type()),
             leaf = leaves.select(0, chunk).select(0, block);
      kernels::rms_norm_backward(flat(dy), flat(x), weight, part(rstd_by_head).contiguous().view({-1}), dx_part,
                                 leaf);
      part(dx).copy_(dx_part.view({length, block_heads, width}));
    }
  }
  // Blocks of all tp ranks: [tp, chunks, blocks, E] -> leaves in order (chunk, tp, block).
  Tensor all = make_float({tp, chunks, blocks, width});
  if (tp == 1)
    all = leaves;
  else
    check(context.groups.tp->all_gather(bytes(leaves), mutable_bytes(all)));
  all = all.view({tp, chunks, blocks, width});
  std::vector<Tensor> values;
  for (int64_t chunk = 0; chunk < chunks; ++chunk)
    for (int64_t place = 0; place < tp; ++place)
      for (int64_t block = 0; block < blocks; ++block)
        values.push_back(all.select(0, place).select(0, chunk).select(0, block));
  dweight.copy_(tree_sum(std::move(values)));
  return dx;
}

}  // namespace tessera::model
