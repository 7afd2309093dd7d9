#include "model/moe_ffn.h"

#include <ATen/ops/empty_like.h>

#include "model/dense_ffn.h"
#include "model/parallel.h"
#include "model/tree.h"

namespace tessera::model {
namespace {

int64_t moe_layers(const ModelSpec& spec) {
  int64_t layers = 0;
  for (int64_t layer = 0; layer < spec.layers; ++layer) layers += spec.is_moe(layer);
  return layers;
}

void count_balance(const Context& context, const MoeSaved& saved, MoeStatistics& statistics) {
  const auto& counts = saved.dispatch->tokens_of_expert();
  int64_t experts = context.spec.moe.experts;
  const float* p = saved.probabilities.const_data_ptr<float>();
  for (int64_t i = 0; i < saved.probabilities.numel(); ++i)
    statistics.balance.add(static_cast<double>(counts[static_cast<size_t>(i % experts)]) *
                           static_cast<double>(p[i]));
  statistics.expert_tokens.resize(static_cast<size_t>(experts), 0);
  const int32_t* chosen = saved.expert.const_data_ptr<int32_t>();
  for (int64_t i = 0; i < saved.expert.numel(); ++i) ++statistics.expert_tokens[static_cast<size_t>(chosen[i])];
}

// The experts of this rank on their rows: gate_up is kept, the result is the tree over this rank's blocks,
// float32.
Tensor run_experts(Context& context, Unit& experts, MoeSaved& saved) {
  int64_t width = context.spec.moe.ffn / context.layout.tp, blocks = context.local_blocks(),
          part = width / blocks;
  int64_t first_expert = expert_place(context.layout, context.at) * context.local_experts();
  saved.gate_up = make({saved.rows.size(0), 2 * width}, context.dtype());
  Tensor inner = make({saved.rows.size(0), width}, context.dtype());
  for (int64_t e = 0; e < context.local_experts(); ++e) {
    kernels::PackedWeight weight(experts.fused(Role::gate, Role::up, first_expert + e));
    for (Segment s : saved.dispatch->of_expert(e)) {
      Tensor gate_up = rows(saved.gate_up, s.first, s.count), out = rows(inner, s.first, s.count);
      kernels::gemm_packed(rows(saved.rows, s.first, s.count), weight, gate_up);
      kernels::silu_mul(gate_up, out);
    }
  }
  return sum_blocks(context, saved.rows.size(0), context.spec.hidden, [&](int64_t block, Tensor& out) {
    for (int64_t e = 0; e < context.local_experts(); ++e) {
      kernels::PackedWeight down(columns(experts.weight(Role::down, first_expert + e), block * part, part));
      for (Segment s : saved.dispatch->of_expert(e)) {
        Tensor into = rows(out, s.first, s.count);
        kernels::gemm_packed(columns(rows(inner, s.first, s.count), block * part, part), down, into);
      }
    }
  });
}

// Gradients of one expert's weights: a leaf per (micro-batch of the ep group, chunk); an empty leaf is zero.
void expert_weight_gradient(Context& context, const Dispatch& dispatch, int64_t expert, const Tensor& dy,
                            const Tensor& x, Tensor out) {
  int64_t chunks = context.chunks();
  tree_sum(context.layout.ep * chunks, out, [&](int64_t leaf, Tensor& into) {
    Segment s = dispatch.leaf(expert, leaf / chunks, leaf % chunks);
    if (s.count == 0)
      into.zero_();
    else
      kernels::gemm_tn(rows(dy, s.first, s.count), rows(x, s.first, s.count), into);
  });
}

// Backward of run_experts: gradient of the rows, as the tree over blocks.
Tensor experts_backward(Context& context, Unit& experts, const Tensor& dy, const MoeSaved& saved,
                        const Tensor& gradient) {
  int64_t width = context.spec.moe.ffn / context.layout.tp, n = dy.size(0);
  int64_t first_expert = expert_place(context.layout, context.at) * context.local_experts();
  Tensor inner = make({n, width}, context.dtype()), dinner = make({n, width}, context.dtype());
  Tensor dgate_up = at::empty_like(saved.gate_up);
  kernels::silu_mul(saved.gate_up, inner);
  for (int64_t e = 0; e < context.local_experts(); ++e) {
    int64_t expert = first_expert + e;
    Tensor down = experts.weight(Role::down, expert);
    for (Segment s : saved.dispatch->of_expert(e)) {
      Tensor out = rows(dinner, s.first, s.count);
      kernels::gemm_nn(rows(dy, s.first, s.count), down, out);
    }
    expert_weight_gradient(context, *saved.dispatch, e, dy, inner, experts.view(gradient, Role::down, expert));
  }
  kernels::silu_mul_backward(dinner, saved.gate_up, dgate_up);
  for (int64_t e = 0; e < context.local_experts(); ++e)
    expert_weight_gradient(context, *saved.dispatch, e, dgate_up, saved.rows,
                           experts.fused_view(gradient, Role::gate, Role::up, first_expert + e));
  return sum_blocks(context, n, context.spec.hidden, [&](int64_t block, Tensor& out) {
    for (int64_t e = 0; e < context.local_experts(); ++e) {
      Tensor gate = experts.weight(Role::gate, first_expert + e),
             up = experts.weight(Role::up, first_expert + e);
      for (Segment s : saved.dispatch->of_expert(e)) {
        Tensor into = rows(out, s.first, s.count);
        gate_up_input_gradient(rows(dgate_up, s.first, s.count), gate, up, block, context.local_blocks(), into);
      }
    }
  });
}

// Gradient of the mean balancing loss with respect to each probability: the same for all tokens of the
// micro-batch.
Tensor balance_gradient(const Context& context, const MoeSaved& saved) {
  Tensor d = make_float(saved.probabilities.sizes());
  double factor = balance_loss_factor(context);
  const auto& counts = saved.dispatch->tokens_of_expert();
  int64_t experts = context.spec.moe.experts;
  for (int64_t i = 0; i < d.numel(); ++i)
    d.data_ptr<float>()[i] =
        static_cast<float>(factor * static_cast<double>(counts[static_cast<size_t>(i % experts)]));
  return d;
}

}  // namespace

double balance_loss_factor(const Context& context) {
  auto tokens = static_cast<double>(context.tokens());
  double terms = static_cast<double>(moe_layers(context.spec) * context.work.micro_batches());
  return context.spec.moe.aux_loss_coefficient * static_cast<double>(context.spec.moe.experts) /
         (tokens * tokens * terms);
}

Tensor moe_forward(Context& context, Unit& dense, Unit& experts, const Tensor& h, MoeSaved& saved,
                   MoeStatistics& statistics) {
  int64_t tokens = h.size(0), top_k = context.spec.moe.top_k;
  Tensor logits = make_float({tokens, context.spec.moe.experts});
  kernels::gemm_nt(h, dense.weight(Role::router), logits);
  saved.h = h;
  saved.probabilities = at::empty_like(logits);
  saved.expert = make({tokens, top_k}, at::kInt);
  saved.weight = make_float({tokens, top_k});
  kernels::route(logits, top_k, context.spec.moe.normalize_top_k, saved.probabilities, saved.expert,
                 saved.weight);
  saved.dispatch = std::make_unique<Dispatch>(context, saved.expert);
  count_balance(context, saved, statistics);

  Tensor sorted = make({tokens * top_k, h.size(1)}, h.scalar_type());
  kernels::gather_rows(h, saved.dispatch->token_of_row(), sorted);
  saved.rows = saved.dispatch->to_experts(sorted);
  saved.returned = saved.dispatch->from_experts(run_experts(context, experts, saved), context.dtype());
  Tensor y = make_float({tokens, h.size(1)});
  kernels::combine(saved.returned, saved.dispatch->row_of_slot(), saved.weight, y);
  return y;
}

Tensor moe_backward(Context& context, Unit& dense, Unit& experts, const Tensor& dy, const MoeSaved& saved,
                    const Tensor& router_gradient, const Tensor& gradient) {
  Tensor dsorted = at::empty_like(saved.returned), dweight = make_float(saved.weight.sizes());
  kernels::combine_backward(dy, saved.returned, saved.dispatch->row_of_slot(), saved.weight, dsorted, dweight);
  Tensor dlogits = make_float(saved.probabilities.sizes());
  kernels::route_backward(dweight, balance_gradient(context, saved), saved.probabilities, saved.expert,
                          saved.weight, context.spec.moe.normalize_top_k, dlogits);

  Tensor drows = experts_backward(context, experts, saved.dispatch->to_experts(dsorted), saved, gradient);
  Tensor returned = saved.dispatch->from_experts(std::move(drows), context.dtype());
  Tensor dh = make_float({dy.size(0), dy.size(1)});
  kernels::sum_slots(returned, saved.dispatch->row_of_slot(), dh);

  Tensor d = to_dtype(dlogits, context.dtype());
  kernels::gemm_nn(d, dense.weight(Role::router), dh, true);
  int64_t chunks = context.local_chunks(), length = dy.size(0) / chunks;
  Tensor leaves = make_float({chunks, context.spec.moe.experts, context.spec.hidden});
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    Tensor leaf = leaves.select(0, chunk);
    kernels::gemm_tn(rows(d, chunk * length, length), rows(saved.h, chunk * length, length), leaf);
  }
  dense.view(router_gradient, Role::router).copy_(sum_chunks_over_tp(context, leaves));
  return dh;
}

}  // namespace tessera::model
