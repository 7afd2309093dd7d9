// RMSNorm of this rank's tokens, with the gradient of its weight summed by chunks (and blocks of heads for
// QK-norm).
#pragma once

#include "model/context.h"

namespace tessera::model {

struct Normed {
  Tensor y, rstd;
};
Normed norm_forward(const Context& context, const Tensor& x, const Tensor& weight);

// dx, and dweight[D] of the micro-batch (summed over tp) into `dweight`.
Tensor norm_backward(Context& context, const Tensor& dy, const Tensor& x, const Tensor& weight,
                     const Tensor& rstd, Tensor dweight);

// QK-norm: x[T, Hl, E] is normed head by head with one weight[E] that all heads share.
Normed head_norm_forward(const Context& context, const Tensor& x, const Tensor& weight);
// Leaves are (chunk, block of tp_blocks); rows within a leaf in order of token, then head.
Tensor head_norm_backward(Context& context, const Tensor& dy, const Tensor& x, const Tensor& weight,
                          const Tensor& rstd, Tensor dweight);

}  // namespace tessera::model
