#include <ATen/ops/zeros.h>

#include "kernels/reference.h"
#include "kernels/testing.h"

namespace tessera::kernels {
namespace {

using testing::excess;
using testing::kBf16Unit;
using testing::kFloatUnit;
using testing::random;
using testing::same_bits;
using testing::strided;
using testing::WithThreads;

struct Shape {
  int64_t tokens, heads, kv_heads, head_dim;
  int64_t document;  // tokens of each document
};
// Every head width, groups of 1 to 4, borders of tiles and blocks, documents shorter and longer than a block.
const Shape kShapes[] = {{1, 1, 1, 8, 1},      {5, 2, 1, 16, 3},      {48, 4, 2, 8, 48},  {130, 2, 2, 32, 41},
                         {129, 4, 1, 64, 999}, {300, 1, 1, 128, 150}, {257, 2, 1, 24, 7}, {0, 2, 1, 8, 1}};

struct Inputs {
  Tensor q, k, v, dout, start;
};

Inputs inputs_of(const Shape& s, at::ScalarType type = at::kFloat) {
  Tensor start = at::zeros({s.tokens}, at::kInt);
  for (int64_t t = 0; t < s.tokens; ++t)
    start.data_ptr<int32_t>()[t] = static_cast<int32_t>(t / s.document * s.document);
  return {random({s.tokens, s.heads, s.head_dim}, 1, type, 2),
          random({s.tokens, s.kv_heads, s.head_dim}, 2, type),
          random({s.tokens, s.kv_heads, s.head_dim}, 3, type), random({s.tokens, s.heads, s.head_dim}, 4, type),
          start};
}

struct Outputs {
  Tensor out, lse, dq, dk, dv;
};

double scale_of(const Shape& s) {
  return 1 / std::sqrt(static_cast<double>(s.head_dim));
}

Outputs run(const Inputs& in, double scale) {
  Outputs o{in.q.clone(), at::zeros({in.q.size(0), in.q.size(1)}), in.q.clone(), in.k.clone(), in.v.clone()};
  attention(in.q, in.k, in.v, in.start, scale, o.out, o.lse);
  attention_backward(in.dout, in.q, in.k, in.v, o.out, o.lse, in.start, scale, o.dq, o.dk, o.dv);
  return o;
}

bool equal(const Outputs& a, const Outputs& b) {
  return same_bits(a.out, b.out) && same_bits(a.lse, b.lse) && same_bits(a.dq, b.dq) && same_bits(a.dk, b.dk) &&
         same_bits(a.dv, b.dv);
}

class AttentionShapes : public ::testing::TestWithParam<Shape> {};
INSTANTIATE_TEST_SUITE_P(Shapes, AttentionShapes, ::testing::ValuesIn(kShapes));

TEST_P(AttentionShapes, EqualsTheReferenceForwardAndBackward) {
  const Shape s = GetParam();
  for (auto type : {at::kFloat, at::kBFloat16}) {
    const Inputs in = inputs_of(s, type);
    const Outputs o = run(in, scale_of(s));
    const auto expected = reference::attention(in.q, in.k, in.v, in.start, scale_of(s));
    const auto gradient = reference::attention_backward(in.dout, in.q, in.k, in.v, in.start, scale_of(s));
    // An error of a score moves its weight by the same relative amount; scores are sums of head_dim products of
    // size up to 10, means and gradients sums of up to `tokens` values of size up to 5.
    const double terms = static_cast<double>(s.head_dim + s.tokens + 16 * s.heads);
    const double unit = type == at::kFloat ? 10 * terms * kFloatUnit : 4 * kBf16Unit;
    EXPECT_LE(excess(o.out, expected.out, unit, unit), 1);
    EXPECT_LE(excess(o.lse, expected.lse, 10 * terms * kFloatUnit, 10 * terms * kFloatUnit), 1);
    EXPECT_LE(excess(o.dq, gradient.dq, 10 * unit, unit), 1);
    EXPECT_LE(excess(o.dk, gradient.dk, 10 * unit, unit), 1);
    EXPECT_LE(excess(o.dv, gradient.dv, 10 * unit, unit), 1);
  }
}

TEST_P(AttentionShapes, IgnoresStridesAndThreads) {
  const Shape s = GetParam();
  const Inputs in = inputs_of(s);
  const Outputs expected = run(in, scale_of(s));
  const Inputs apart{strided(in.q), strided(in.k, 8, 1), strided(in.v), strided(in.dout), in.start};
  EXPECT_TRUE(equal(run(apart, scale_of(s)), expected));
  WithThreads with(3);
  EXPECT_TRUE(equal(run(in, scale_of(s)), expected));
}

TEST_P(AttentionShapes, GivesTheSameBitsForASubsetOfHeads) {
  const Shape s = GetParam();
  const Inputs in = inputs_of(s);
  const Outputs whole = run(in, scale_of(s));
  const int64_t group = s.heads / s.kv_heads;
  for (int64_t kv = 0; kv < s.kv_heads; ++kv) {
    auto heads = [&](const Tensor& x) { return x.narrow(1, kv * group, group).contiguous(); };
    auto kv_head = [&](const Tensor& x) { return x.narrow(1, kv, 1).contiguous(); };
    const Inputs part{heads(in.q), kv_head(in.k), kv_head(in.v), heads(in.dout), in.start};
    const Outputs expected{heads(whole.out), heads(whole.lse), heads(whole.dq), kv_head(whole.dk),
                           kv_head(whole.dv)};
    EXPECT_TRUE(equal(run(part, scale_of(s)), expected)) << kv;
  }
}

TEST(Attention, OfATokenDependsOnlyOnTheKeysItSees) {
  const Shape s{200, 2, 1, 16, 90};
  Inputs in = inputs_of(s);
  const Outputs before = run(in, scale_of(s));
  // Documents are [0, 90), [90, 180), [180, 200): change all but the middle one.
  for (int64_t first : {0, 180}) {
    in.k.narrow(0, first, first == 0 ? 90 : 20).fill_(3.0f);
    in.v.narrow(0, first, first == 0 ? 90 : 20).fill_(-2.0f);
    in.q.narrow(0, first, first == 0 ? 90 : 20).fill_(1.0f);
  }
  const Outputs after = run(in, scale_of(s));
  auto middle = [](const Tensor& x) { return x.narrow(0, 90, 90); };
  EXPECT_TRUE(
      equal({middle(after.out), middle(after.lse), middle(after.dq), middle(after.dk), middle(after.dv)},
            {middle(before.out), middle(before.lse), middle(before.dq), middle(before.dk), middle(before.dv)}));
}

}  // namespace
}  // namespace tessera::kernels
