// What the kernels compute, as plain loops: the oracle of the tests and the definition to read first.
// Products are given bit for bit (float32 chains of fma); the rest in float64, from inputs of any float type,
// with results in float64.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace tessera::kernels::reference {

using at::Tensor;

// out[m,n] = fma chain over k ascending, from `start` (undefined: zeros); of bf16 operands the chain of
// kernels.h. Float32, equal to gemm_* in all bits.
Tensor product(const Tensor& a_MK, const Tensor& b_KN, const Tensor& start = {});

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps);
struct NormGradient {
  Tensor dx, dweight;
};
NormGradient rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, double eps);

Tensor rope(const Tensor& x_THE, const Tensor& positions, const Tensor& cos, const Tensor& sin, bool inverse);

Tensor silu_mul(const Tensor& gate_up);
Tensor silu_mul_backward(const Tensor& dout, const Tensor& gate_up);

struct Attention {
  Tensor out, lse;
};
Attention attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& start, double scale);
struct AttentionGradient {
  Tensor dq, dk, dv;
};
AttentionGradient attention_backward(const Tensor& dout, const Tensor& q, const Tensor& k, const Tensor& v,
                                     const Tensor& start, double scale);

Tensor embedding(const Tensor& weight, const Tensor& tokens, int64_t first);
Tensor embedding_backward(const Tensor& dout, const Tensor& tokens, int64_t first, int64_t rows);

// Mean-free cross-entropy of one whole vocabulary: loss[t] and the gradient of sum_t scale[t] * loss[t].
struct CrossEntropy {
  Tensor loss, gradient;
};
CrossEntropy cross_entropy(const Tensor& logits, const Tensor& targets, const Tensor& scale);

Tensor softmax(const Tensor& logits_TX);

// One step; returns the new master, m and v.
struct AdamWState {
  Tensor master, m, v;
};
AdamWState adamw(double learning_rate, double beta1, double beta2, double epsilon, double weight_decay,
                 int64_t step, const Tensor& gradient, const AdamWState& state);

}  // namespace tessera::kernels::reference
