#include "serve/linear.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <functional>

#include "kernels/gemm_experts.h"

namespace tessera::serve {

using at::Tensor;

namespace {

Tensor empty(at::IntArrayRef sizes, at::ScalarType dtype = at::kFloat) {
  return at::empty(sizes, at::TensorOptions().dtype(dtype));
}

Tensor in_order(const Tensor& x, const Tensor& order) {
  return order.defined() ? x.index_select(1, order) : x;
}

// bias[e] for the rows [first[e], first[e + 1]); experts without one are left as they are.
void add_biases(Tensor& rows, std::span<const int64_t> first, const std::function<Tensor(size_t)>& bias) {
  for (size_t e = 0; e + 1 < first.size(); ++e) {
    const Tensor own = bias(e);
    if (!own.defined() || first[e] == first[e + 1]) continue;
    Tensor part = rows.narrow(0, first[e], first[e + 1] - first[e]);
    kernels::add_bias(part, own, part);
  }
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
  if (!bias_.defined()) return multiply(x, out);
  Tensor sum = out.scalar_type() == at::kFloat ? out : empty(out.sizes());
  multiply(x, sum);
  kernels::add_bias(sum, bias_, out);
}

void Linear::multiply(const Tensor& x, Tensor& out) const {
  if (!quant_.empty()) return kernels::gemm_quant(in_order(x, order_), quant_, out);
  kernels::gemm_packed(x, floats_, out);
}

Tensor BlockLinear::apply(const Tensor& x) const {
  if (floats_.empty()) {
    Tensor sum = empty({x.size(0), quant_.n()});
    kernels::gemm_quant(in_order(x, order_), {&quant_, 1}, sum);
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
  if (bias_.defined()) kernels::add_bias(parts[0], bias_, parts[0]);
  return parts;
}

Tensor FeedForward::ordered(const Tensor& rows, std::span<const int64_t> first) const {
  if (std::ranges::none_of(orders_, [](const Tensor& order) { return order.defined(); })) return rows;
  Tensor out = empty(rows.sizes(), rows.scalar_type());
  for (size_t e = 0; e < orders_.size(); ++e)
    out.narrow(0, first[e], first[e + 1] - first[e])
        .copy_(in_order(rows.narrow(0, first[e], first[e + 1] - first[e]), orders_[e]));
  return out;
}

Tensor FeedForward::gate_up_of(const Tensor& rows) const {
  const bool biased = floats_[0].gate_up_bias.defined();
  return empty({rows.size(0), floats_[0].gate_up.n()}, biased ? at::kFloat : rows.scalar_type());
}

Tensor FeedForward::activated(const Tensor& rows, Tensor gate_up, std::span<const int64_t> first) const {
  add_biases(gate_up, first, [&](size_t e) { return floats_[e].gate_up_bias; });
  const int64_t width = gate_up.size(1) / (activation_.gated() ? 2 : 1);
  Tensor act = empty({rows.size(0), width}, rows.scalar_type());
  kernels::activate(activation_, gate_up, act);
  return act;
}

Tensor FeedForward::apply(const Tensor& x) const {
  if (!quant_.empty()) {
    Tensor sum = empty({x.size(0), quant_[0].down.n()});
    const int64_t bounds[] = {0, x.size(0)};
    kernels::ffn_quant(ordered(x, bounds), bounds, quant_, sum);
    return sum;
  }
  Tensor gate_up = gate_up_of(x);
  kernels::gemm_packed(x, floats_[0].gate_up, gate_up);
  const int64_t bounds[] = {0, x.size(0)};
  return floats_[0].down.apply(activated(x, gate_up, bounds));
}

// The products one by one give the bits of the network at once: so do rows without an adapter.
Tensor FeedForward::apply(const Tensor& x, const Additions& additions) const {
  const int64_t bounds[] = {0, x.size(0)};
  Tensor out, act;
  if (quant_.empty()) {
    Tensor gate_up = gate_up_of(x);
    kernels::gemm_packed(x, floats_[0].gate_up, gate_up);
    additions.gate_up(gate_up);
    act = activated(x, gate_up, bounds);
    out = floats_[0].down.apply(act);
  } else {
    const kernels::QuantFfn& ffn = quant_[0];
    const kernels::QuantWeight first[] = {ffn.gate, ffn.up};
    Tensor gate_up = empty({x.size(0), ffn.gate.n() + ffn.up.n()});
    kernels::gemm_quant(ordered(x, bounds), first, gate_up);
    additions.gate_up(gate_up);
    act = empty({x.size(0), ffn.gate.n()});
    kernels::activate(activation_, gate_up, act);
    out = empty({x.size(0), ffn.down.n()});
    kernels::gemm_quant(act, {&ffn.down, 1}, out);
  }
  additions.down(act, out);
  return out;
}

std::vector<Tensor> FeedForward::apply_experts(const Tensor& rows, std::span<const int64_t> first) const {
  std::vector<Tensor> parts;
  if (!quant_.empty()) {
    const int64_t blocks = quant_[0].down.blocks();
    Tensor out = empty({blocks, rows.size(0), quant_[0].down.n()});
    kernels::ffn_quant(ordered(rows, first), first, quant_, out);
    for (int64_t block = 0; block < blocks; ++block) parts.push_back(out.select(0, block));
    return parts;
  }
  std::vector<const kernels::PackedWeight*> weights;
  for (const Floats& ffn : floats_) weights.push_back(&ffn.gate_up);
  Tensor gate_up = gate_up_of(rows);
  kernels::gemm_experts(rows, first, weights, gate_up);
  const Tensor act = activated(rows, gate_up, first);
  int64_t column = 0;
  for (size_t block = 0; block < floats_[0].down.num_blocks(); ++block) {
    weights.clear();
    for (const Floats& ffn : floats_) weights.push_back(&ffn.down.block(block));
    Tensor& out = parts.emplace_back(empty({rows.size(0), weights[0]->n()}));
    kernels::gemm_experts(act.narrow(1, column, weights[0]->k()), first, weights, out);
    column += weights[0]->k();
  }
  add_biases(parts[0], first, [&](size_t e) { return floats_[e].down.bias(); });
  return parts;
}

}  // namespace tessera::serve
