// Mixture of experts: softmax router, top-k, dropless experts (SwiGLU each), load-balancing loss.
//
// Balancing loss of one layer and micro-batch (Fedus et al. 2021, eq. 4, as Hugging Face counts it):
//   coefficient * X * sum_x (tokens that chose x / T) * (mean over tokens of the probability of x)
// averaged over MoE layers and over the micro-batches of a step. Counts are constants of the gradient.
#pragma once

#include "core/exact_sum.h"
#include "model/dispatch.h"
#include "model/unit.h"

namespace tessera::model {

struct MoeSaved {
  Tensor h;                              // [Tl, D]
  Tensor probabilities, expert, weight;  // [Tl, X], [Tl, k], [Tl, k]
  std::unique_ptr<Dispatch> dispatch;
  Tensor rows;      // [N, D] on the owner
  Tensor gate_up;   // [N, 2 Fl]
  Tensor returned;  // [Tl * k, D], sorted
};

// What a step counts over its layers and micro-batches.
struct MoeStatistics {
  ExactSum balance;                    // sum of count_x * probability[t, x]; see balance_loss()
  std::vector<int64_t> expert_tokens;  // by expert, of this rank's tokens
};

Tensor moe_forward(Context& context, Unit& dense, Unit& experts, const Tensor& h, MoeSaved& saved,
                   MoeStatistics& statistics);
// `router_gradient` is the dense unit's flat gradient, `gradient` the experts'.
Tensor moe_backward(Context& context, Unit& dense, Unit& experts, const Tensor& dy, const MoeSaved& saved,
                    const Tensor& router_gradient, const Tensor& gradient);

// Factor from the sum of count * probability over a step to the balancing loss (coefficient included).
double balance_loss_factor(const Context& context);

}  // namespace tessera::model
