// Grouped-query attention with rotary embedding and optional QK-norm, on the heads of this tp rank.
// Shapes: h[Tl, D] normed input of this rank's tokens; output float32 [Tl, D], to be added to the residual.
#pragma once

#include "model/batch.h"
#include "model/unit.h"

namespace tessera::model {

struct AttentionSaved {
  Tensor h;                             // [Tl, D]
  Tensor q, k, v;                       // [T, Hl | Kl, E], rotated
  Tensor q_raw, k_raw, q_rstd, k_rstd;  // before QK-norm
  Tensor out, lse;                      // [T, Hl, E], [T, Hl]
};

Tensor attention_forward(Context& context, Unit& unit, const Batch& batch, const Tensor& h,
                         AttentionSaved& saved);
// dy[Tl, D] in the working precision -> gradient of h, [Tl, D]; weight gradients are written into `gradient`
// (flat).
Tensor attention_backward(Context& context, Unit& unit, const Batch& batch, const Tensor& dy,
                          const AttentionSaved& saved, const Tensor& gradient);

}  // namespace tessera::model
