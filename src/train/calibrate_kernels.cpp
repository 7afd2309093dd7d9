#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include "core/exact_sum.h"
#include "kernels/kernels.h"
#include "train/calibrate_parts.h"
#include "train/timing.h"

namespace tessera::train {
namespace {

using at::Tensor;
using plan::Op;
using plan::Product;

at::ScalarType dtype_of(Precision precision) {
  return precision == Precision::bf16 ? at::kBFloat16 : at::kFloat;
}
Tensor random(at::IntArrayRef shape, at::ScalarType dtype) {
  return at::randn(shape, at::TensorOptions().dtype(at::kFloat)).to(dtype);
}
Tensor fresh(at::IntArrayRef shape, at::ScalarType dtype) {
  return at::empty(shape, at::TensorOptions().dtype(dtype));
}

// ---- one-pass operations ----

constexpr int64_t kRows = 512, kWidth = 256;

// What backward reads was kept by forward long before.
double norm_seconds(ColdOperands& operands, bool backward, double budget_s) {
  at::ScalarType dtype = dtype_of(operands.precision());
  Tensor x = random({kRows, kWidth}, dtype), dy = random({kRows, kWidth}, dtype),
         weight = random({kWidth}, dtype);
  Tensor rstd = fresh({kRows}, at::kFloat), dweight = at::zeros({kWidth});
  Tensor y = fresh({kRows, kWidth}, dtype);
  kernels::rms_norm(x, weight, 1e-6, y, rstd);
  return median_seconds(budget_s, [&] {
    Tensor out = fresh({kRows, kWidth}, dtype);
    if (backward)
      kernels::rms_norm_backward(dy, operands.take({kRows, kWidth}), weight, rstd, out, dweight);
    else
      kernels::rms_norm(x, weight, 1e-6, out, rstd);
  });
}

double rope_seconds(at::ScalarType dtype, double budget_s) {
  std::vector<float> frequencies(16, 0.5f);
  kernels::RopeTable table = kernels::rope_table(frequencies, kRows);
  Tensor x = random({kRows, kWidth / 32, 32}, dtype);
  Tensor positions = at::zeros({kRows}, at::TensorOptions().dtype(at::kLong));
  return median_seconds(budget_s, [&] { kernels::rope(x, positions, table); });
}

double silu_seconds(ColdOperands& operands, bool backward, double budget_s) {
  at::ScalarType dtype = dtype_of(operands.precision());
  Tensor gate_up = random({kRows, 2 * kWidth}, dtype), dout = random({kRows, kWidth}, dtype);
  return median_seconds(budget_s, [&] {
    Tensor out = fresh({kRows, backward ? 2 * kWidth : kWidth}, dtype);
    if (backward)
      kernels::silu_mul_backward(dout, operands.take({kRows, 2 * kWidth}), out);
    else
      kernels::silu_mul(gate_up, out);
  });
}

double add_seconds(at::ScalarType dtype, double budget_s) {
  Tensor a = random({kRows, kWidth}, dtype), b = random({kRows, kWidth}, at::kFloat);
  return median_seconds(budget_s, [&] {
    Tensor out = fresh({kRows, kWidth}, dtype);
    kernels::add_rounded(a, b, out);
  });
}

// Gradients and optimizer states are as large as the model: a pass over them runs at the speed of memory.
constexpr int64_t kColdElements = 4 << 20;

double accumulate_seconds(double budget_s) {
  Tensor a = random({kColdElements}, at::kFloat), b = random({kColdElements}, at::kFloat);
  return median_seconds(budget_s, [&] { kernels::add_into(a, b); });
}

double move_rows_seconds(at::ScalarType dtype, double budget_s) {
  Tensor x = random({kRows, kWidth}, dtype);
  Tensor index = at::randint(kRows, {kRows}, at::TensorOptions().dtype(at::kLong));
  return median_seconds(budget_s, [&] {
    Tensor out = fresh({kRows, kWidth}, dtype);
    kernels::gather_rows(x, index, out);
  });
}

double pack_seconds(ColdOperands& operands, double budget_s) {
  return median_seconds(budget_s, [&] { kernels::PackedWeight packed(operands.take({kRows, kWidth})); });
}

double combine_seconds(at::ScalarType dtype, double budget_s) {
  Tensor rows = random({kRows, kWidth}, dtype), weight = random({kRows / 2, 2}, at::kFloat);
  Tensor position = at::randint(kRows, {kRows / 2, 2}, at::TensorOptions().dtype(at::kLong));
  return median_seconds(budget_s, [&] {
    Tensor out = fresh({kRows / 2, kWidth}, at::kFloat);
    kernels::combine(rows, position, weight, out);
  });
}

constexpr int64_t kExperts = 8, kVocab = 4096, kLossRows = 64;

double route_seconds(double budget_s) {
  Tensor logits = random({kRows, kExperts}, at::kFloat);
  return median_seconds(budget_s, [&] {
    Tensor probabilities = fresh({kRows, kExperts}, at::kFloat), expert = fresh({kRows, 2}, at::kInt),
           weight = fresh({kRows, 2}, at::kFloat);
    kernels::route(logits, 2, true, probabilities, expert, weight);
  });
}

double loss_seconds(double budget_s) {
  Tensor logits = random({kLossRows, kVocab}, at::kFloat);
  Tensor targets = at::zeros({kLossRows}, at::TensorOptions().dtype(at::kLong)), scale = at::zeros({kLossRows});
  return median_seconds(budget_s, [&] {
    Tensor max = fresh({kLossRows}, at::kFloat), sum = fresh({kLossRows}, at::kFloat);
    kernels::row_max(logits, max);
    kernels::row_sum_exp(logits, max, sum);
    kernels::cross_entropy_gradient(logits, max, sum, targets, 0, scale);
  });
}

double squares_seconds(double budget_s) {
  Tensor values = random({kColdElements}, at::kFloat);
  ExactSum sum;
  return median_seconds(budget_s, [&] { kernels::sum_of_squares(values, sum.limbs()); });
}

double optimizer_seconds(double budget_s) {
  int64_t n = kColdElements;
  Tensor gradient = random({n}, at::kFloat), master = random({n}, at::kFloat), m = at::zeros({n}),
         v = at::zeros({n});
  Tensor none;
  kernels::AdamW options{.learning_rate = 1e-3};
  return median_seconds(budget_s, [&] { kernels::adamw(options, 1, gradient, master, m, v, none); });
}

}  // namespace

constexpr int64_t kColdPool = 16 << 20;

ColdOperands::ColdOperands(Precision precision)
    : precision_(precision),
      values_(random({kColdPool}, dtype_of(precision))),
      results_(at::zeros({kColdPool}, at::TensorOptions().dtype(dtype_of(precision)))),
      gradients_(at::zeros({kColdPool})) {}

Tensor ColdMemory::take(at::IntArrayRef shape) {
  int64_t elements = 1;
  for (int64_t extent : shape) elements *= extent;
  TESSERA_REQUIRE(elements <= values_.numel(), "calibration: an operand of {} elements", elements);
  if (next_ + elements > values_.numel()) next_ = 0;
  Tensor piece = values_.narrow(0, next_, elements).view(shape);
  next_ += elements;
  return piece;
}

// ---- products ----

double product_seconds(Product product, ColdOperands& operands, int64_t m, int64_t n, int64_t k,
                       double budget_s) {
  return median_seconds(budget_s, [&] {
    Tensor a = product == Product::tn ? operands.take({k, m}) : operands.take({m, k});
    Tensor b = product == Product::nt ? operands.take({n, k}) : operands.take({k, n});
    Tensor out = product == Product::nt   ? operands.result({m, n})
                 : product == Product::tn ? operands.gradient({m, n})
                                          : fresh({m, n}, at::kFloat);
    if (product == Product::nt) kernels::gemm_nt(a, b, out);
    if (product == Product::nn) kernels::gemm_nn(a, b, out);
    if (product == Product::tn) kernels::gemm_tn(a, b, out);
  });
}

plan::GemmGrid measure_grid(Product product, ColdOperands& operands, double largest, double budget_s) {
  plan::GemmGrid grid{
      product, operands.precision(), {16, 64, 256, 1024}, {16, 64, 256, 1024, 4096}, {16, 64, 256, 1024}, {}};
  double each = budget_s / static_cast<double>(grid.m.size() * grid.n.size() * grid.k.size());
  size_t row = grid.k.size();
  for (double m : grid.m)
    for (double n : grid.n)
      for (double k : grid.k) {
        double flops = 2 * m * n * k;
        if (flops > largest) {
          size_t at = grid.flops_per_s.size();
          bool smaller_k = k > grid.k.front();
          grid.flops_per_s.push_back(grid.flops_per_s[smaller_k ? at - 1 : at - row]);
          continue;
        }
        double seconds = product_seconds(product, operands, static_cast<int64_t>(m), static_cast<int64_t>(n),
                                         static_cast<int64_t>(k), each);
        grid.flops_per_s.push_back(flops / seconds);
      }
  return grid;
}

// ---- attention ----

plan::AttentionPoint measure_attention(ColdOperands& operands, int64_t head_dim, double budget_s) {
  Precision precision = operands.precision();
  constexpr int64_t kTokens = 256, kDocument = 128, kHeads = 8, kKvHeads = 4;
  at::ScalarType dtype = dtype_of(precision);
  Tensor q = random({kTokens, kHeads, head_dim}, dtype), k = random({kTokens, kKvHeads, head_dim}, dtype),
         v = random({kTokens, kKvHeads, head_dim}, dtype), dout = random({kTokens, kHeads, head_dim}, dtype);
  Tensor start = at::zeros({kTokens}, at::TensorOptions().dtype(at::kInt));
  for (int64_t t = 0; t < kTokens; ++t)
    start.data_ptr<int32_t>()[t] = static_cast<int32_t>(t / kDocument * kDocument);
  Tensor out = fresh({kTokens, kHeads, head_dim}, dtype), lse = fresh({kTokens, kHeads}, at::kFloat);
  double flops = 4.0 * kTokens * (kDocument + 1) / 2 * kHeads * static_cast<double>(head_dim);
  double forward = median_seconds(budget_s / 2, [&] {
    Tensor result = fresh({kTokens, kHeads, head_dim}, dtype);
    kernels::attention(q, k, v, start, 0.2, result, lse);
    out = result;
  });
  double backward = median_seconds(budget_s / 2, [&] {
    Tensor dq = fresh(q.sizes(), dtype), dk = fresh(k.sizes(), dtype), dv = fresh(v.sizes(), dtype);
    auto kept = [&](const Tensor& like) { return operands.take(like.sizes()); };
    kernels::attention_backward(dout, kept(q), kept(k), kept(v), kept(out), lse, start, 0.2, dq, dk, dv);
  });
  return {precision, static_cast<double>(head_dim), flops / forward, 2.5 * flops / backward};
}

// ---- one-pass operations ----

std::map<Op, double> measure_ops(ColdOperands& operands, double overhead_s, double budget_s) {
  at::ScalarType dtype = dtype_of(operands.precision());
  double each = budget_s / plan::kOps, elements = kRows * kWidth;
  std::map<Op, double> seconds = {
      {Op::norm, norm_seconds(operands, false, each) / elements},
      {Op::norm_backward, norm_seconds(operands, true, each) / elements},
      {Op::rope, rope_seconds(dtype, each) / elements},
      {Op::silu, silu_seconds(operands, false, each) / elements},
      {Op::silu_backward, silu_seconds(operands, true, each) / elements},
      {Op::add, add_seconds(dtype, each) / elements},
      {Op::accumulate, accumulate_seconds(each) / kColdElements},
      {Op::move_rows, move_rows_seconds(dtype, each) / elements},
      {Op::pack, pack_seconds(operands, each) / elements},
      {Op::combine, combine_seconds(dtype, each) / elements},
      {Op::route, route_seconds(each) / (kRows * kExperts)},
      {Op::loss, loss_seconds(each) / (kLossRows * kVocab)},
      {Op::squares, squares_seconds(each) / kColdElements},
      {Op::optimizer, optimizer_seconds(each) / kColdElements},
  };
  for (auto& [op, value] : seconds) value = std::max(value - overhead_s / elements, value / 10);
  return seconds;
}

double kernel_overhead(double budget_s) {
  Tensor x = random({1, 16}, at::kFloat), weight = random({16}, at::kFloat), rstd = fresh({1}, at::kFloat);
  return median_seconds(budget_s, [&] {
    Tensor out = fresh({1, 16}, at::kFloat);
    kernels::rms_norm(x, weight, 1e-6, out, rstd);
  });
}

}  // namespace tessera::train
