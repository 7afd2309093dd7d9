// SwiGLU: down(silu(gate(h)) * up(h)), its width cut over tp. Shapes as in attention.h.
#pragma once

#include "model/unit.h"

namespace tessera::model {

struct DenseSaved {
  Tensor h;        // [Tl, D]
  Tensor gate_up;  // [T, 2 Fl]
};

Tensor dense_forward(Context& context, Unit& unit, const Tensor& h, DenseSaved& saved);
Tensor dense_backward(Context& context, Unit& unit, const Tensor& dy, const DenseSaved& saved,
                      const Tensor& gradient);

// out = d_gate W_gate + d_up W_up for one block of the width; gate_up gradients are [T, 2 Fl], weights [Fl, D].
// Overwrites.
void gate_up_input_gradient(const Tensor& dgate_up, const Tensor& gate, const Tensor& up, int64_t block,
                            int64_t blocks, Tensor& out);

}  // namespace tessera::model
