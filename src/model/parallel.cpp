#include "model/parallel.h"

#include "model/failure.h"
#include "model/tree.h"

namespace tessera::model {

Tensor gather_tokens(Context& context, const Tensor& x) {
  if (context.layout.tp == 1) return x;
  auto shape = x.sizes().vec();
  shape[0] *= context.layout.tp;
  Tensor whole = make(shape, x.scalar_type());
  check(context.groups.tp->all_gather(bytes(x), mutable_bytes(whole)));
  return whole;
}

Tensor reduce_scatter_tokens(Context& context, Tensor partial) {
  int64_t tp = context.layout.tp;
  if (tp == 1) return partial;
  int64_t mine = partial.size(0) / tp;
  std::vector<Bytes> out;
  std::vector<MutableBytes> in;
  std::vector<Tensor> received;
  for (int64_t place = 0; place < tp; ++place) {
    out.push_back(bytes(rows(partial, place * mine, mine)));
    received.push_back(make_float({mine, partial.size(1)}));
    in.push_back(mutable_bytes(received.back()));
  }
  check(context.groups.tp->all_to_all(out, in));
  return tree_sum(std::move(received));
}

Tensor sum_blocks(Context& context, int64_t tokens, int64_t width,
                  const std::function<void(int64_t, Tensor&)>& multiply) {
  Tensor sum = make_float({tokens, width});
  tree_sum(context.local_blocks(), sum, multiply);
  return sum;
}

Tensor row_parallel(Context& context, const Tensor& x, const Tensor& weight) {
  int64_t width = x.size(1) / context.local_blocks();
  Tensor partial = sum_blocks(context, x.size(0), weight.size(0), [&](int64_t block, Tensor& out) {
    kernels::gemm_nt(columns(x, block * width, width), columns(weight, block * width, width), out);
  });
  return reduce_scatter_tokens(context, std::move(partial));
}

void weight_gradient(const Tensor& dy, const Tensor& x, int64_t chunks, Tensor& out) {
  int64_t length = x.size(0) / chunks;
  tree_sum(chunks, out, [&](int64_t chunk, Tensor& leaf) {
    kernels::gemm_tn(rows(dy, chunk * length, length), rows(x, chunk * length, length), leaf);
  });
}

Tensor sum_chunks_over_tp(Context& context, const Tensor& leaves) {
  Tensor all = gather_tokens(context, leaves);
  std::vector<Tensor> values;
  for (int64_t i = 0; i < all.size(0); ++i) values.push_back(all.select(0, i));
  return tree_sum(std::move(values));
}

}  // namespace tessera::model
