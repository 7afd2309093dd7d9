// The references' gradients are formulae too: here they meet finite differences.
#include "kernels/reference.h"

#include <ATen/ops/zeros.h>

#include <functional>

#include "kernels/testing.h"

namespace tessera::kernels {
namespace {

using testing::random;

// d/dx of dot(weights, f(x)) by central differences, in float64.
void expect_gradient(const Tensor& x, const Tensor& weights, const std::function<Tensor(const Tensor&)>& f,
                     const Tensor& gradient) {
  const Tensor at = x.to(at::kDouble).clone(), factor = weights.to(at::kDouble).contiguous();
  auto value = [&] {
    const Tensor y = f(at).contiguous();
    double sum = 0;
    for (int64_t i = 0; i < y.numel(); ++i) sum += y.data_ptr<double>()[i] * factor.data_ptr<double>()[i];
    return sum;
  };
  for (int64_t i = 0; i < at.numel(); ++i) {
    double& element = at.data_ptr<double>()[i];
    const double before = element, step = 1e-5;
    element = before + step;
    const double above = value();
    element = before - step;
    const double below = value();
    element = before;
    EXPECT_NEAR(gradient.data_ptr<double>()[i], (above - below) / (2 * step), 1e-7) << i;
  }
}

TEST(Reference, RmsNormGradientEqualsFiniteDifferences) {
  const Tensor x = random({3, 5}, 1), weight = random({5}, 2), dy = random({3, 5}, 3);
  const auto gradient = reference::rms_norm_backward(dy, x, weight, 0.1);
  expect_gradient(
      x, dy, [&](const Tensor& v) { return reference::rms_norm(v, weight, 0.1); }, gradient.dx);
  expect_gradient(
      weight, dy, [&](const Tensor& v) { return reference::rms_norm(x, v, 0.1); }, gradient.dweight);
}

TEST(Reference, SiluMulGradientEqualsFiniteDifferences) {
  const Tensor gate_up = random({3, 8}, 1), dout = random({3, 4}, 2);
  expect_gradient(gate_up, dout, reference::silu_mul, reference::silu_mul_backward(dout, gate_up));
}

TEST(Reference, CrossEntropyGradientEqualsFiniteDifferences) {
  const Tensor logits = random({3, 6}, 1), scale = random({3}, 2);
  Tensor targets = at::zeros({3}, at::kLong);
  targets.data_ptr<int64_t>()[1] = 4;
  expect_gradient(
      logits, scale, [&](const Tensor& v) { return reference::cross_entropy(v, targets, scale).loss; },
      reference::cross_entropy(logits, targets, scale).gradient);
}

TEST(Reference, AttentionGradientEqualsFiniteDifferences) {
  const Tensor q = random({6, 4, 3}, 1), k = random({6, 2, 3}, 2), v = random({6, 2, 3}, 3);
  const Tensor dout = random({6, 4, 3}, 4);
  Tensor start = at::zeros({6}, at::kInt);
  start.data_ptr<int32_t>()[4] = start.data_ptr<int32_t>()[5] = 4;
  auto out = [&](const Tensor& a, const Tensor& b, const Tensor& c) {
    return reference::attention(a, b, c, start, 0.6).out;
  };
  const auto gradient = reference::attention_backward(dout, q, k, v, start, 0.6);
  expect_gradient(
      q, dout, [&](const Tensor& x) { return out(x, k, v); }, gradient.dq);
  expect_gradient(
      k, dout, [&](const Tensor& x) { return out(q, x, v); }, gradient.dk);
  expect_gradient(
      v, dout, [&](const Tensor& x) { return out(q, k, x); }, gradient.dv);
}

}  // namespace
}  // namespace tessera::kernels
