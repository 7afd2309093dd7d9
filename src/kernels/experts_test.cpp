#include <ATen/ops/add.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mul.h>
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

struct Routed {
  Tensor probabilities, expert, weight;
};

Routed route_of(const Tensor& logits, int64_t top_k, bool normalize) {
  const int64_t tokens = logits.size(0);
  Routed r{at::zeros(logits.sizes()), at::zeros({tokens, top_k}, at::kInt), at::zeros({tokens, top_k})};
  route(logits, top_k, normalize, r.probabilities, r.expert, r.weight);
  return r;
}

TEST(Route, ChoosesTheLargestProbabilities) {
  for (int64_t experts : {2, 8, 33})
    for (bool normalize : {false, true}) {
      const Tensor logits = random({20, experts}, 1);
      const Routed r = route_of(logits, 2, normalize);
      const Tensor expected = reference::softmax(logits);
      EXPECT_LE(excess(r.probabilities, expected, 1e-30, 40 * kFloatUnit), 1);
      for (int64_t t = 0; t < 20; ++t) {
        const double* p = expected.data_ptr<double>() + t * experts;
        const int32_t* chosen = r.expert.data_ptr<int32_t>() + t * 2;
        int64_t above_first = 0, above_second = 0;
        for (int64_t x = 0; x < experts; ++x) {
          above_first += p[x] > p[chosen[0]];
          above_second += p[x] > p[chosen[1]];
        }
        EXPECT_EQ(above_first, 0);
        EXPECT_EQ(above_second, 1);
        const double total = normalize ? p[chosen[0]] + p[chosen[1]] : 1;
        EXPECT_NEAR(r.weight.data_ptr<float>()[t * 2 + 1], p[chosen[1]] / total, 60 * kFloatUnit);
      }
    }
}

TEST(Route, GivesTiesToTheLowestExpert) {
  const Routed r = route_of(at::full({1, 6}, 0.25f), 3, true);
  for (int32_t k = 0; k < 3; ++k) EXPECT_EQ(r.expert.data_ptr<int32_t>()[k], k);
}

// The value whose gradient route_backward gives, in float64 with the choice of experts held fixed.
double routed_value(const Tensor& logits, const Routed& r, bool normalize, const Tensor& dweight,
                    const Tensor& dprobabilities) {
  const Tensor p = reference::softmax(logits);
  const int64_t tokens = logits.size(0), experts = logits.size(1), top_k = r.expert.size(1);
  double value = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    const double* row = p.data_ptr<double>() + t * experts;
    const int32_t* chosen = r.expert.data_ptr<int32_t>() + t * top_k;
    double total = 0;
    for (int64_t k = 0; k < top_k; ++k) total += row[chosen[k]];
    for (int64_t k = 0; k < top_k; ++k)
      value += dweight.data_ptr<float>()[t * top_k + k] * row[chosen[k]] / (normalize ? total : 1);
    for (int64_t x = 0; x < experts; ++x) value += dprobabilities.data_ptr<float>()[t * experts + x] * row[x];
  }
  return value;
}

TEST(Route, BackwardEqualsFiniteDifferences) {
  for (bool normalize : {false, true}) {
    const Tensor logits = random({3, 7}, 1), dweight = random({3, 3}, 2), dprobabilities = random({3, 7}, 3);
    const Routed r = route_of(logits, 3, normalize);
    Tensor dlogits = at::zeros({3, 7});
    route_backward(dweight, dprobabilities, r.probabilities, r.expert, r.weight, normalize, dlogits);
    const Tensor wide = logits.to(at::kDouble);
    for (int64_t i = 0; i < 21; ++i) {
      const double step = 1e-5, before = wide.data_ptr<double>()[i];
      wide.data_ptr<double>()[i] = before + step;
      const double above = routed_value(wide, r, normalize, dweight, dprobabilities);
      wide.data_ptr<double>()[i] = before - step;
      const double below = routed_value(wide, r, normalize, dweight, dprobabilities);
      wide.data_ptr<double>()[i] = before;
      EXPECT_NEAR(dlogits.data_ptr<float>()[i], (above - below) / (2 * step), 2e-6) << normalize << i;
    }
  }
}

TEST(Route, BackwardTakesAnUndefinedGradientOfTheProbabilitiesAsZero) {
  const Tensor logits = random({4, 8}, 1), dweight = random({4, 2}, 2);
  const Routed r = route_of(logits, 2, true);
  Tensor with = at::zeros({4, 8}), without = at::full({4, 8}, 3.0f);
  route_backward(dweight, at::zeros({4, 8}), r.probabilities, r.expert, r.weight, true, with);
  route_backward(dweight, {}, r.probabilities, r.expert, r.weight, true, without);
  EXPECT_TRUE(same_bits(with, without));
}

struct Dispatch {
  Tensor x, index, position, weight;
  int64_t tokens = 9, k = 2, width = 21;

  explicit Dispatch(at::ScalarType type)
      : x(random({9, 21}, 1, type)),
        index(at::zeros({18}, at::kLong)),
        position(at::zeros({9, 2}, at::kLong)),
        weight(random({9, 2}, 2)) {
    for (int64_t i = 0; i < 18; ++i) {
      const int64_t row = i * 7 % 18;  // a permutation
      position.data_ptr<int64_t>()[i] = row;
      index.data_ptr<int64_t>()[row] = i / 2;
    }
  }
};

TEST(Experts, CombineOfGatheredRowsIsTheWeightedSumPerToken) {
  for (auto type : {at::kFloat, at::kBFloat16}) {
    const Dispatch d(type);
    Tensor rows = at::zeros({18, 21}, type), y = at::zeros({9, 21}, type), twice = y.clone();
    gather_rows(strided(d.x), d.index, rows);
    combine(rows, d.position, d.weight, y);
    sum_slots(rows, d.position, twice);
    const Tensor x = d.x.to(at::kDouble), expected = x.clone();
    for (int64_t t = 0; t < 9; ++t)
      for (int64_t i = 0; i < 21; ++i)
        expected.data_ptr<double>()[t * 21 + i] *=
            static_cast<double>(d.weight.data_ptr<float>()[2 * t]) + d.weight.data_ptr<float>()[2 * t + 1];
    const double unit = type == at::kFloat ? 8 * kFloatUnit : kBf16Unit;
    EXPECT_LE(excess(y, expected, 8 * kFloatUnit, unit), 1);
    EXPECT_LE(excess(twice, x.mul(2), 0, unit), 1);
  }
}

TEST(Experts, CombineBackwardIsTheTransposedMap) {
  for (auto type : {at::kFloat, at::kBFloat16}) {
    const Dispatch d(type);
    const Tensor rows = random({18, 21}, 5, type), dy = random({9, 21}, 6, type);
    Tensor drows = at::zeros({18, 21}, type), dweight = at::zeros({9, 2});
    combine_backward(dy, rows, d.position, d.weight, drows, dweight);
    const Tensor wide_rows = rows.to(at::kDouble), wide_dy = dy.to(at::kDouble);
    Tensor expected_rows = at::zeros({18, 21}, at::kDouble), expected_weight = at::zeros({9, 2}, at::kDouble);
    for (int64_t slot = 0; slot < 18; ++slot)
      for (int64_t i = 0; i < 21; ++i) {
        const int64_t row = d.position.data_ptr<int64_t>()[slot];
        const double gradient = wide_dy.data_ptr<double>()[slot / 2 * 21 + i];
        expected_weight.data_ptr<double>()[slot] += gradient * wide_rows.data_ptr<double>()[row * 21 + i];
        expected_rows.data_ptr<double>()[row * 21 + i] = d.weight.data_ptr<float>()[slot] * gradient;
      }
    const double unit = type == at::kFloat ? 2 * kFloatUnit : kBf16Unit;
    EXPECT_LE(excess(drows, expected_rows, 0, unit), 1);
    EXPECT_LE(excess(dweight, expected_weight, 200 * kFloatUnit, 0), 1);
  }
}

TEST(Experts, AcceptNoTokens) {
  const Tensor none = at::zeros({0, 21}), index = at::zeros({0}, at::kLong),
               slots = at::zeros({0, 2}, at::kLong);
  Tensor rows = none.clone(), y = none.clone(), dweight = at::zeros({0, 2});
  gather_rows(random({4, 21}, 1), index, rows);
  combine(rows, slots, at::zeros({0, 2}), y);
  combine_backward(none, rows, slots, at::zeros({0, 2}), y, dweight);
  const Routed r = route_of(at::zeros({0, 8}), 2, true);
  EXPECT_EQ(r.weight.numel(), 0);
}

}  // namespace
}  // namespace tessera::kernels
