#include "serve/linear.h"

#include <ATen/ops/empty.h>

#include "kernels/gemm_experts.h"

namespace tessera::serve {

using at::Tensor;

namespace {

Tensor empty(at::IntArrayRef sizes, at::ScalarType dtype = at::kFloat) {
  return at::empty(sizes, at::TensorOptions().dtype(dtype));
}

std::vector<Tensor> gated(const Tensor& x, const FeedForward::Floats& ffn) {
  Tensor gate_up = empty({x.size(0), ffn.gate_up.n()}, x.scalar_type());
  kernels::gemm_packed(x, ffn.gate_up, gate_up);
  Tensor act = empty({x.size(0), ffn.gate_up.n() / 2}, x.scalar_type());
  kernels::silu_mul(gate_up, act);
  return ffn.down.apply_apart(act);
}

}  // namespace

void tree_sum(std::vector<Tensor>& parts) {
  for (size_t width = 1; width < parts.size(); width *= 2)
    for (size_t i = 0; i + width < parts.size(); i += 2 * width) kernels::add_into(parts[i], parts[i + width]);
}

int64_t Linear::n() const {
  int64_t n = floats_.n();
  for (const auto& weight : quant_) n += weight.n();
  return n;
}

void Linear::apply(const Tensor& x, Tensor& out) const {
  if (!quant_.empty()) return kernels::gemm_quant(x, quant_, out);
  kernels::gemm_packed(x, floats_, out);
}

Tensor BlockLinear::apply(const Tensor& x) const {
  if (floats_.empty()) {
    Tensor sum = empty({x.size(0), quant_.n()});
    kernels::gemm_quant(x, {&quant_, 1}, sum);
    return sum;
  }
  std::vector<Tensor> parts = apply_apart(x);
  tree_sum(parts);
  return parts[0];
}

std::vector<Tensor> BlockLinear::apply_apart(const Tensor& x) const {
  std::vector<Tensor> parts;
  int64_t first = 0;
  for (const auto& weight : floats_) {
    Tensor& out = parts.emplace_back(empty({x.size(0), weight.n()}));
    kernels::gemm_packed(x.narrow(1, first, weight.k()), weight, out);
    first += weight.k();
  }
  return parts;
}

Tensor FeedForward::apply(const Tensor& x) const {
  if (!quant_.empty()) {
    Tensor sum = empty({x.size(0), quant_[0].down.n()});
    const int64_t bounds[] = {0, x.size(0)};
    kernels::ffn_quant(x, bounds, quant_, sum);
    return sum;
  }
  std::vector<Tensor> parts = gated(x, floats_[0]);
  tree_sum(parts);
  return parts[0];
}

std::vector<Tensor> FeedForward::apply_experts(const Tensor& rows, std::span<const int64_t> first) const {
  std::vector<Tensor> parts;
  if (!quant_.empty()) {
    const int64_t blocks = quant_[0].down.blocks();
    Tensor out = empty({blocks, rows.size(0), quant_[0].down.n()});
    kernels::ffn_quant(rows, first, quant_, out);
    for (int64_t block = 0; block < blocks; ++block) parts.push_back(out.select(0, block));
    return parts;
  }
  std::vector<const kernels::PackedWeight*> weights;
  for (const Floats& ffn : floats_) weights.push_back(&ffn.gate_up);
  Tensor gate_up = empty({rows.size(0), floats_[0].gate_up.n()}, rows.scalar_type());
  kernels::gemm_experts(rows, first, weights, gate_up);
  Tensor act = empty({rows.size(0), gate_up.size(1) / 2}, rows.scalar_type());
  kernels::silu_mul(gate_up, act);
  int64_t column = 0;
  for (size_t block = 0; block < floats_[0].down.num_blocks(); ++block) {
    weights.clear();
    for (const Floats& ffn : floats_) weights.push_back(&ffn.down.block(block));
    Tensor& out = parts.emplace_back(empty({rows.size(0), weights[0]->n()}));
    kernels::gemm_experts(act.narrow(1, column, weights[0]->k()), first, weights, out);
    column += weights[0]->k();
  }
  return parts;
}

}  // namespace tessera::serve
