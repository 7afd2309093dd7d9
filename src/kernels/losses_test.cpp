#include <ATen/ops/add.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/zeros.h>

#include "core/exact_sum.h"
#include "kernels/attention_tile.h"
#include "kernels/reference.h"
#include "kernels/table.h"
#include "kernels/testing.h"

namespace tessera::kernels {
namespace {

using testing::excess;
using testing::kBf16Unit;
using testing::kFloatUnit;
using testing::random;
using testing::same_bits;
using testing::WithThreads;

TEST(Exponential, IsWithinTwoUnitsInTheLastPlaceOnEveryInstructionSet) {
  // Through the gradient with max 0, sum 1 and scale 1, which is exp itself.
  const int64_t count = 40000;
  Tensor x = at::arange(count, at::kFloat);
  for (int64_t i = 0; i < count; ++i)
    x.data_ptr<float>()[i] = -87.3f + 176.0f * static_cast<float>(i) / static_cast<float>(count);
  for (const char* name : {"generic", "avx2", "avx512"}) {
    const Table* isa_table = table_named(name);
    if (isa_table == nullptr) continue;
    Tensor y = x.clone();
    isa_table->softmax_gradient(y.data_ptr<float>(), 0, 1, 1, count);
    double worst = 0;
    for (int64_t i = 0; i < count; ++i) {
      const double exact = std::exp(static_cast<double>(x.data_ptr<float>()[i]));
      worst = std::max(worst, std::abs(y.data_ptr<float>()[i] / exact - 1));
    }
    EXPECT_LT(worst, 2 * 2 * kFloatUnit) << name;
    const float special[] = {0, -100, 89, -INFINITY, INFINITY, NAN};
    float result[6];
    std::copy_n(special, 6, result);
    isa_table->softmax_gradient(result, 0, 1, 1, 6);
    EXPECT_EQ(result[0], 1);
    EXPECT_EQ(result[1], 0);
    EXPECT_EQ(result[2], INFINITY);
    EXPECT_EQ(result[3], 0);
    EXPECT_EQ(result[4], INFINITY);
    EXPECT_TRUE(std::isnan(result[5]));
  }
}

TEST(NaturalLog, AgreesWithTheLibrary) {
  for (double x = 1e-8; x < 1e9; x *= 1.0137)
    EXPECT_NEAR(natural_log(x), std::log(x), 4e-16 * (1 + std::abs(std::log(x)))) << x;
  EXPECT_EQ(natural_log(1), 0);
}

struct Loss {
  Tensor max, sum, gradient;
};

// The loss of logits cut in `blocks` equal blocks of the vocabulary.
Loss loss_of(const Tensor& logits, const Tensor& targets, const Tensor& scale, int64_t blocks) {
  const int64_t tokens = logits.size(0), width = logits.size(1) / blocks;
  Loss loss{at::full({tokens}, -INFINITY), at::zeros({tokens}), logits.clone()};
  std::vector<Tensor> parts;
  for (int64_t b = 0; b < blocks; ++b) {
    parts.push_back(logits.narrow(1, b * width, width).clone(at::MemoryFormat::Contiguous));
    Tensor max = at::zeros({tokens});
    row_max(parts.back(), max);
    for (int64_t t = 0; t < tokens; ++t)
      loss.max.data_ptr<float>()[t] = std::max(loss.max.data_ptr<float>()[t], max.data_ptr<float>()[t]);
  }
  for (const Tensor& part : parts) {
    Tensor sum = at::zeros({tokens});
    row_sum_exp(part, loss.max, sum);
    add_into(loss.sum, sum);
  }
  for (int64_t b = 0; b < blocks; ++b) {
    cross_entropy_gradient(parts[static_cast<size_t>(b)], loss.max, loss.sum, targets, b * width, scale);
    loss.gradient.narrow(1, b * width, width).copy_(parts[static_cast<size_t>(b)]);
  }
  return loss;
}

TEST(CrossEntropy, EqualsTheReferenceForAnyNumberOfBlocks) {
  const int64_t tokens = 9, vocabulary = 120;
  const Tensor logits = random({tokens, vocabulary}, 1, at::kFloat, 4);
  Tensor targets = at::zeros({tokens}, at::kLong), scale = random({tokens}, 2);
  for (int64_t t = 0; t < tokens; ++t) targets.data_ptr<int64_t>()[t] = t * 47 % vocabulary;
  scale.data_ptr<float>()[4] = 0;  // a masked token
  const auto expected = reference::cross_entropy(logits, targets, scale);
  for (int64_t blocks : {1, 2, 5, 8}) {
    const Loss loss = loss_of(logits, targets, scale, blocks);
    // A logit minus the maximum is below 40 and rounded, which moves its exponential by 40 units.
    EXPECT_LE(excess(loss.gradient, expected.gradient, 100 * kFloatUnit, 100 * kFloatUnit), 1) << blocks;
    for (int64_t t = 0; t < tokens; ++t) {
      const double lse = loss.max.data_ptr<float>()[t] + std::log(loss.sum.data_ptr<float>()[t]);
      const double logit = logits.data_ptr<float>()[t * vocabulary + targets.data_ptr<int64_t>()[t]];
      EXPECT_NEAR(lse - logit, expected.loss.data_ptr<double>()[t], 100 * kFloatUnit);
    }
  }
}

TEST(CrossEntropy, OfATokenDoesNotDependOnItsNeighbours) {
  const Tensor logits = random({50, 700}, 1), scale = at::full({50}, 0.1f);
  const Tensor targets = at::arange(50, at::kLong);
  WithThreads with(3);
  const Loss whole = loss_of(logits, targets, scale, 1);
  for (int64_t t : {0, 17, 49}) {
    const Loss one = loss_of(logits.narrow(0, t, 1), targets.narrow(0, t, 1), scale.narrow(0, t, 1), 1);
    EXPECT_TRUE(same_bits(one.gradient, whole.gradient.narrow(0, t, 1)));
    EXPECT_TRUE(same_bits(one.sum, whole.sum.narrow(0, t, 1)));
  }
}

TEST(AdamW, EqualsTheReferenceOverSteps) {
  const int64_t count = 1003;
  Tensor master = random({count}, 1), m = at::zeros({count}), v = at::zeros({count});
  Tensor working = at::zeros({count}, at::kBFloat16);
  reference::AdamWState state{master.clone(), m.clone(), v.clone()};
  for (int64_t step = 1; step <= 5; ++step) {
    const Tensor gradient = random({count}, static_cast<uint64_t>(step) + 10, at::kFloat, 0.1);
    adamw({.learning_rate = 1e-2, .step = step}, 0.5, gradient, master, m, v, working);
    const Tensor scaled = random({count}, static_cast<uint64_t>(step) + 10, at::kFloat, 0.1).mul(0.5);
    state = reference::adamw(1e-2, 0.9, 0.95, 1e-8, 0.1, step, scaled, state);
    const double unit = 8 * static_cast<double>(step) * kFloatUnit;
    EXPECT_LE(excess(m, state.m, unit, unit), 1);
    EXPECT_LE(excess(v, state.v, unit * 1e-3, unit), 1);
    // m / sqrt(v) of size below 10 times the rate, and m may cancel against its last value.
    EXPECT_LE(excess(master, state.master, 20 * unit, unit), 1) << step;
    EXPECT_TRUE(same_bits(working, master.to(at::kBFloat16)));
  }
}

TEST(AdamW, OfASliceEqualsTheSliceOfTheWhole) {
  const Tensor gradient = random({500}, 1);
  Tensor master = random({500}, 2), m = random({500}, 3), v = random({500}, 4).mul(0).add(0.3), none;
  Tensor slice = master.narrow(0, 77, 101).clone(), slice_m = m.narrow(0, 77, 101).clone(),
         slice_v = v.narrow(0, 77, 101).clone();
  adamw({.learning_rate = 0.1, .step = 3}, 1, gradient, master, m, v, none);
  adamw({.learning_rate = 0.1, .step = 3}, 1, gradient.narrow(0, 77, 101), slice, slice_m, slice_v, none);
  EXPECT_TRUE(same_bits(slice, master.narrow(0, 77, 101)));
  EXPECT_TRUE(same_bits(slice_m, m.narrow(0, 77, 101)) && same_bits(slice_v, v.narrow(0, 77, 101)));
}

TEST(SumOfSquares, EqualsAddingEverySquareExactly) {
  const int64_t count = 200000;  // more than one run of integers
  Tensor values = random({count}, 1);
  float* data = values.data_ptr<float>();
  for (int64_t i = 0; i < count; ++i) data[i] = std::ldexp(data[i], static_cast<int>(i * 7 % 250) - 140);
  ExactSum expected, whole, parts;
  for (int64_t i = 0; i < count; ++i) expected.add(static_cast<double>(data[i]) * static_cast<double>(data[i]));
  sum_of_squares(values, whole.limbs());
  EXPECT_EQ(whole.value(), expected.value());
  for (int64_t first : {0, 12345}) {
    const int64_t size = first == 0 ? 12345 : count - 12345;
    sum_of_squares(values.narrow(0, first, size), parts.limbs());
  }
  EXPECT_EQ(parts.value(), expected.value());
  data[77] = NAN;
  sum_of_squares(values, whole.limbs());
  EXPECT_TRUE(std::isnan(whole.value()));
}

}  // namespace
}  // namespace tessera::kernels
