#include "kernels/served_layers.h"

#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/zeros.h>

#include "kernels/testing.h"

namespace tessera::kernels {
namespace {

using testing::excess;
using testing::kBf16Unit;
using testing::kFloatUnit;
using testing::random;
using testing::same_bits;
using testing::strided;

constexpr at::ScalarType kFloatTypes[] = {at::kFloat, at::kBFloat16};
double unit_of(at::ScalarType type) {
  return type == at::kFloat ? 4 * kFloatUnit : kBf16Unit;
}

TEST(LayerNorm, EqualsTorchOnEveryWidth) {
  for (at::ScalarType type : kFloatTypes)
    for (int64_t width : {1, 15, 16, 33, 200}) {
      const Tensor x = random({5, width}, 1, type, 3).add(2), weight = random({width}, 2),
                   bias = random({width}, 3);
      Tensor y = at::zeros({5, width}, type);
      layer_norm(strided(x), weight, bias, 1e-5, y);
      const Tensor expected =
          at::layer_norm(x.to(at::kDouble), {width}, weight.to(at::kDouble), bias.to(at::kDouble), 1e-5);
      EXPECT_LE(excess(y, expected, 20 * kFloatUnit, 2 * unit_of(type)), 1) << width;
    }
}

TEST(AddBias, EqualsTorchAndRoundsOnce) {
  const Tensor x = random({7, 37}, 1), bias = random({37}, 2);
  Tensor out = at::zeros({7, 37}, at::kBFloat16);
  add_bias(x, bias, out);
  EXPECT_TRUE(same_bits(out, x.add(bias).to(at::kBFloat16)));
}

Tensor swiglu_clamped_of(const Tensor& in, double alpha, double limit) {
  const Tensor x = in.to(at::kDouble), gate = x.narrow(1, 0, x.size(1) / 2).clamp_max(limit);
  const Tensor up = x.narrow(1, x.size(1) / 2, x.size(1) / 2).clamp(-limit, limit);
  return up.add(1).mul(gate.mul(gate.mul(alpha).sigmoid()));
}

TEST(Activate, EqualsItsFormula) {
  using Kind = Activation::Kind;
  for (at::ScalarType type : kFloatTypes) {
    const Tensor in = random({9, 74}, 4, type, 5), wide = in.to(at::kDouble);
    Tensor half = at::zeros({9, 37}, type), whole = at::zeros({9, 74}, type);
    activate({.kind = Kind::swiglu_clamped, .alpha = 1.702f, .limit = 3}, in, half);
    EXPECT_LE(excess(half, swiglu_clamped_of(in, 1.702f, 3), 1e-6, 2 * unit_of(type)), 1);
    activate({.kind = Kind::gelu_tanh}, in, whole);
    EXPECT_LE(excess(whole, at::gelu(wide, "tanh"), 4e-6, 2 * unit_of(type)), 1);
    activate({.kind = Kind::gelu}, in, whole);
    EXPECT_LE(excess(whole, at::gelu(wide, "none"), 4e-6, 2 * unit_of(type)), 1);
  }
}

// The choice by sorting, in doubles.
void expect_route(const GroupRouting& routing, const Tensor& logits, const Tensor& correction, int64_t top_k) {
  const int64_t tokens = logits.size(0), experts = logits.size(1), size = experts / routing.groups;
  Tensor expert = at::zeros({tokens, top_k}, at::kInt), weight = at::zeros({tokens, top_k});
  route_groups(logits, correction, routing, expert, weight);
  const Tensor wide = logits.to(at::kDouble);
  const Tensor scores = routing.sigmoid ? wide.sigmoid() : wide.softmax(-1);
  Tensor choice = correction.defined() ? scores.add(correction) : scores;
  const Tensor grouped = choice.view({tokens, routing.groups, size});
  const Tensor strength = std::get<0>(grouped.topk(routing.best_two ? 2 : 1, -1)).sum(-1);
  const Tensor groups = std::get<1>(strength.topk(routing.chosen_groups, -1));
  const Tensor allowed = at::zeros({tokens, routing.groups}, at::kDouble).scatter(1, groups, 1).unsqueeze(-1);
  choice =
      grouped.masked_fill(allowed.expand({tokens, routing.groups, size}).eq(0), -1e9).view({tokens, experts});
  const Tensor index = std::get<1>(choice.topk(top_k, -1));
  EXPECT_TRUE(expert.to(at::kLong).equal(index));
  Tensor expected = scores.gather(1, index);
  if (routing.normalize) expected = expected.div(expected.sum(-1, true));
  EXPECT_LE(excess(weight, expected.mul(routing.scale), 1e-30, 1e-5), 1);
}

TEST(RouteGroups, ChoosesGroupsThenExperts) {
  const Tensor logits = random({50, 24}, 7, at::kFloat, 2), correction = random({24}, 8, at::kFloat, 0.3);
  expect_route({.groups = 6, .chosen_groups = 2, .scale = 2.5}, logits, correction, 4);
  expect_route({.sigmoid = false, .best_two = false, .groups = 4, .chosen_groups = 3, .normalize = false},
               logits, {}, 6);
  expect_route({.sigmoid = false, .best_two = false}, logits, {}, 3);
}

}  // namespace
}  // namespace tessera::kernels
