// Layers of models that are served and not trained here: biases, LayerNorm, other gates, routing by groups.
//
// Bits, types and threads: as kernels.h. Shape letters: T tokens, D width, X experts, k experts of a token.
#pragma once

#include "kernels/kernels.h"

namespace tessera::kernels {

// out[t] = x[t] + bias, any of the two dtypes each; out may be x. bias [D].
void add_bias(const Tensor& x_TD, const Tensor& bias, Tensor& out_TD);

// y[t] = (x - mean) / sqrt(variance + eps) * weight + bias
void layer_norm(const Tensor& x_TD, const Tensor& weight, const Tensor& bias, double eps, Tensor& y_TD);

// What stands between the two products of a feed-forward network.
struct Activation {
  enum class Kind {
    silu,            // silu(gate) * up
    swiglu_clamped,  // (up + 1) * gate * sigmoid(alpha * gate), gate <= limit, |up| <= limit (gpt-oss)
    gelu_tanh,       // no gate; tanh's form (GPT-2)
    gelu,            // no gate; the normal distribution itself, within 1.5e-7 * |x| (BERT, ESM-2)
  };
  Kind kind = Kind::silu;
  float alpha = 1.702f, limit = 7;
  bool gated() const { return kind == Kind::silu || kind == Kind::swiglu_clamped; }
};
// in: [T, 2F], gate in the first half of each row, or [T, F] without a gate; out [T, F].
void activate(const Activation& activation, const Tensor& in, Tensor& out_TF);

// How DeepSeek chooses experts: groups first, then the best of the chosen groups.
struct GroupRouting {
  bool sigmoid = true;        // scores of single experts (V3); false: softmax over all (V2)
  bool best_two = true;       // a group counts by the sum of its two best (V3); false: by its best (V2)
  int64_t groups = 1;         // REQUIRES: divides X
  int64_t chosen_groups = 1;  // of them, whose experts may be chosen
  bool normalize = true;      // chosen scores are divided by their sum
  double scale = 1;           // of the weights, afterwards
};
// From logits[T,X] float32; correction float32 [X] is added to scores for the choice alone, or undefined.
// expert[T,k] int32 in descending order, equal ones by index; weight[T,k] float32.
void route_groups(const Tensor& logits, const Tensor& correction, const GroupRouting& routing, Tensor& expert,
                  Tensor& weight);

}  // namespace tessera::kernels
