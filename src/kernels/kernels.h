// The arithmetic of Tessera: few operations, each with a plain reference in reference.h and a test over a table
// of shapes.
//
// Bits: every result element is computed by one fixed sequence of float32 operations that depends only on its
// own inputs: a product is a chain of fma over k ascending, a norm or softmax a fixed tree over its own row. A
// product of bf16 takes k two by two, the later one first, and treats subnormal numbers as zeros, in and out:
// that is the instruction VDPBF16PS. So the result does not depend on the number of rows or columns computed
// beside it, on alignment, on threads or on the SIMD width of the CPU. That makes shards of tensor parallelism,
// any batch of a server and any thread count agree bit for bit.
//
// Tensors are contiguous CPU tensors of float32 or bfloat16, as each function says; bf16 values are widened to
// float32, computed, and rounded to nearest even once. Shape letters: T tokens, D hidden, H heads, K kv heads,
// E head_dim, F ffn, V vocabulary, N/M/K of a product. Shapes and dtypes are checked (programmer errors).
// Threads: all functions are reentrant; set_kernel_threads(n) lets the large ones use n threads (one pool), and
// keeps torch to one.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

namespace tessera::kernels {

using at::Tensor;

void set_kernel_threads(int64_t threads);
int64_t kernel_threads();
// What the dispatch chose, a name of core/cpu_level.h; TESSERA_ISA overrides it.
const char* isa();

// ---- products ----
// out[M,N] = a[M,K] * b[N,K]^T (+ out when accumulate). a, b: float32 or bf16 (equal dtypes); out: float32 or
// bf16 (accumulate needs float32). "nt": b is stored [N,K], as a weight is. A row stride larger than the width
// is allowed.
void gemm_nt(const Tensor& a, const Tensor& b, Tensor& out, bool accumulate = false);
// out[M,N] = a[M,K] * b[K,N]
void gemm_nn(const Tensor& a, const Tensor& b, Tensor& out, bool accumulate = false);
// out[M,N] = a[K,M]^T * b[K,N]: gradients of weights, k over tokens
void gemm_tn(const Tensor& a, const Tensor& b, Tensor& out, bool accumulate = false);

// A weight [N,K] in the order that the inner loop reads: made once, used by many products.
class PackedWeight {
 public:
  PackedWeight() = default;
  explicit PackedWeight(const Tensor& weight_NK);
  int64_t n() const { return n_; }
  int64_t k() const { return k_; }
  const Tensor& storage() const { return storage_; }

 private:
  int64_t n_ = 0, k_ = 0;
  Tensor storage_;
};
// Same bits as gemm_nt with the weight that was packed. M from 1 up.
void gemm_packed(const Tensor& a, const PackedWeight& b, Tensor& out, bool accumulate = false);

// ---- norms, rotary embedding, gates ----
// y[T,D] = x / sqrt(mean(x^2) + eps) * weight; rstd[T] float32 is kept for backward (may be undefined when not
// wanted).
void rms_norm(const Tensor& x, const Tensor& weight, double eps, Tensor& y, Tensor& rstd);
// dx[T,D] (x's dtype, may be x or dy); dweight[D] float32 continues row by row: fma(dy, x * rstd, dweight).
void rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& rstd, Tensor& dx,
                       Tensor& dweight);

// In place on x[T,H,E]: rotates pairs (i, i + E/2) by position * inv_freq[i]; inverse = true rotates back (the
// gradient). cos and sin are float32 tables [positions, E/2] made by rope_table. The H*E rows may have a larger
// stride between tokens.
struct RopeTable {
  Tensor cos, sin;
};
RopeTable rope_table(std::span<const float> inv_freq, int64_t positions);
void rope(Tensor& x_THE, const Tensor& positions_T, const RopeTable& table,
          bool inverse = false);  // positions int64

// out[T,F] = silu(gate) * up; gate_up is [T, 2F]: gate in the first half of each row.
void silu_mul(const Tensor& gate_up, Tensor& out);
void silu_mul_backward(const Tensor& dout, const Tensor& gate_up, Tensor& dgate_up);

// ---- attention ----
// Causal within documents: token t sees tokens [start[t], t]. q[T,H,E], k and v [T,K,E] (token strides may be
// larger), out[T,H,E], lse[T,H] float32 (log of the sum of exponentials). scale is usually 1/sqrt(E). start:
// int32 [T], start[t] <= t. Keys go in blocks of 128 counted from the tensor's first token: part of the bits.
void attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& start, double scale,
               Tensor& out, Tensor& lse);
// dq, dk, dv in the dtype of q; dk and dv sum over the query heads of their group in ascending order.
void attention_backward(const Tensor& dout, const Tensor& q, const Tensor& k, const Tensor& v,
                        const Tensor& out, const Tensor& lse, const Tensor& start, double scale, Tensor& dq,
                        Tensor& dk, Tensor& dv);

// ---- embedding and loss ----
// out[t] = weight[token - first] when token is in [first, first + rows), else zeros. tokens int64.
void embedding(const Tensor& weight, const Tensor& tokens, int64_t first, Tensor& out);
// dweight[rows,D] float32 += rows of dout, in ascending order of t.
void embedding_backward(const Tensor& dout, const Tensor& tokens, int64_t first, Tensor& dweight);

// Cross-entropy over a vocabulary cut in blocks. Step 1, per block: max[T] of logits[T,Vb].
// Step 2: sum[T] = sum of exp(logits - global max) over this block. Both float32. logits: float32.
void row_max(const Tensor& logits, Tensor& max);
void row_sum_exp(const Tensor& logits, const Tensor& max, Tensor& sum);
// Turns logits into their gradient in place: (exp(l - max) / sum - [v == target]) * scale[t]; targets outside
// [first, first + Vb) have no one-hot part here. scale: float32 [T], 0 for masked tokens.
void cross_entropy_gradient(Tensor& logits, const Tensor& max, const Tensor& sum, const Tensor& targets,
                            int64_t first, const Tensor& scale);

// ---- mixture of experts ----
// probabilities[T,X] float32 = softmax(logits[T,X] float32); the k largest (ties: lowest index), in descending
// order: expert[T,k] int32, weight[T,k] float32, scaled to sum to one when normalize.
void route(const Tensor& logits, int64_t top_k, bool normalize, Tensor& probabilities, Tensor& expert,
           Tensor& weight);
// dlogits[T,X] from dweight[T,k] and from dprobabilities[T,X] (of the balancing loss; may be undefined).
void route_backward(const Tensor& dweight, const Tensor& dprobabilities, const Tensor& probabilities,
                    const Tensor& expert, const Tensor& weight, bool normalize, Tensor& dlogits);
// out[i] = x[index[i]] (int64 rows)
void gather_rows(const Tensor& x, const Tensor& index, Tensor& out);
// y[t] = sum over slot k ascending of weight[t,k] * rows[position[t,k]]; accumulated in float32. position int64
// [T,k].
void combine(const Tensor& rows, const Tensor& position, const Tensor& weight, Tensor& y);
// drows[position[t,k]] = weight[t,k] * dy[t]; dweight[t,k] = dot(dy[t], rows[position[t,k]]).
void combine_backward(const Tensor& dy, const Tensor& rows, const Tensor& position, const Tensor& weight,
                      Tensor& drows, Tensor& dweight);
// y[t] = sum over slot k ascending of rows[position[t,k]]: the gradient of a dispatch.
void sum_slots(const Tensor& rows, const Tensor& position, Tensor& y);

// ---- elementwise, sums, optimizer ----
void add_into(Tensor& into, const Tensor& value);                 // float32 += float32
void add_rounded(const Tensor& a, const Tensor& b, Tensor& out);  // out = a + b, any of the two dtypes each
void convert(const Tensor& from, Tensor& to);                     // float32 <-> bf16, nearest even
// Adds value[i]^2 of float32 values to the limbs of an exact accumulator: see core/exact_sum.h.
void sum_of_squares(const Tensor& values, std::span<int64_t> exact_sum_limbs);

// AdamW (Loshchilov and Hutter 2019), float32 states: weight is the master; `working` (float32 or bf16, may be
// undefined or the master itself) receives the rounded result. gradient (either dtype) times `gradient_scale`
// is used. Element by element: a slice gives the bits of the whole.
struct AdamW {
  double learning_rate, beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weight_decay = 0.1;
  int64_t step = 1;  // from 1
};
void adamw(const AdamW& options, double gradient_scale, const Tensor& gradient, Tensor& master, Tensor& m,
           Tensor& v, Tensor& working);

}  // namespace tessera::kernels
