#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/zeros.h>

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
using testing::strided;
using testing::WithThreads;

struct Shape {
  int64_t rows, width;
};
const Shape kShapes[] = {{1, 1}, {3, 7}, {5, 16}, {4, 33}, {70, 64}, {9, 300}, {400, 129}, {0, 8}};

class RowKernels : public ::testing::TestWithParam<Shape> {
 protected:
  int64_t rows() const { return GetParam().rows; }
  int64_t width() const { return GetParam().width; }
  Tensor values(uint64_t seed, at::ScalarType type = at::kFloat) const {
    return random({rows(), width()}, seed, type);
  }
};
INSTANTIATE_TEST_SUITE_P(Shapes, RowKernels, ::testing::ValuesIn(kShapes));

// A few roundings on top of a sum of `width` positive terms in 16 lanes.
double norm_bound(int64_t width) {
  return (static_cast<double>(width) / 16 + 12) * kFloatUnit;
}

TEST_P(RowKernels, RmsNormEqualsTheReference) {
  for (auto type : {at::kFloat, at::kBFloat16}) {
    const Tensor x = values(1, type), weight = random({width()}, 2);
    Tensor y = at::full({rows(), width()}, 9.0f, type), rstd = at::zeros({rows()});
    rms_norm(x, weight, 1e-5, y, rstd);
    const double relative = type == at::kFloat ? norm_bound(width()) : kBf16Unit;
    EXPECT_LE(excess(y, reference::rms_norm(x, weight, 1e-5), 1e-30, relative), 1);
  }
}

TEST_P(RowKernels, RmsNormBackwardEqualsTheReference) {
  const Tensor x = values(1), dy = values(2), weight = random({width()}, 3);
  Tensor y = values(4), rstd = at::zeros({rows()}), dx = values(5), dweight = at::zeros({width()});
  rms_norm(x, weight, 1e-2, y, rstd);
  rms_norm_backward(dy, x, weight, rstd, dx, dweight);
  if (rows() == 0) return;
  const auto expected = reference::rms_norm_backward(dy, x, weight, 1e-2);
  // Terms of size below 10 (rstd <= 10) cancel, so the error is absolute.
  EXPECT_LE(excess(dx, expected.dx, 200 * norm_bound(width()), norm_bound(width())), 1);
  EXPECT_LE(excess(dweight, expected.dweight, 20.0 * static_cast<double>(rows()) * norm_bound(width()), 0), 1);
}

TEST(RmsNorm, BackwardAddsToTheGradientOfTheWeightInAscendingOrder) {
  const Tensor x = random({40, 50}, 1), dy = random({40, 50}, 2), weight = random({50}, 3);
  Tensor rstd = at::zeros({40}), y = at::zeros({40, 50}), dx = at::zeros({40, 50});
  rms_norm(x, weight, 1e-5, y, rstd);
  Tensor whole = random({50}, 4), parts = whole.clone();
  rms_norm_backward(dy, x, weight, rstd, dx, whole);
  for (int64_t first : {0, 13}) {
    const int64_t count = first == 0 ? 13 : 27;
    Tensor part = at::zeros({count, 50});
    rms_norm_backward(dy.narrow(0, first, count), x.narrow(0, first, count), weight,
                      rstd.narrow(0, first, count), part, parts);
    EXPECT_TRUE(same_bits(part, dx.narrow(0, first, count)));
  }
  EXPECT_TRUE(same_bits(parts, whole));
}

TEST(RmsNorm, WorksOnHeadsOfStridedTokens) {
  const Tensor packed = random({6, 5, 24}, 1), weight = random({24}, 2);
  Tensor expected = at::zeros({30, 24}), rstd = at::zeros({30});
  rms_norm(packed.view({30, 24}), weight, 1e-6, expected, rstd);
  Tensor x = strided(packed), y = strided(at::zeros({6, 5, 24})), none;
  rms_norm(x, weight, 1e-6, y, none);
  EXPECT_TRUE(same_bits(y.contiguous().view({30, 24}), expected));
}

TEST(Rope, RotatesAsTheReferenceAndBack) {
  const std::vector<float> frequencies = {1.0f, 0.3f, 0.01f, 0.002f};
  const RopeTable table = rope_table(frequencies, 100);
  for (auto type : {at::kFloat, at::kBFloat16}) {
    const Tensor x = random({7, 3, 8}, 1, type), positions = at::arange(7, at::kLong).mul(11);
    Tensor y = strided(x);
    rope(y, positions, table);
    const double unit = type == at::kFloat ? 4 * kFloatUnit : kBf16Unit;
    EXPECT_LE(excess(y, reference::rope(x, positions, table.cos, table.sin, false), 5 * unit, unit), 1);
    rope(y, positions, table, true);
    EXPECT_LE(excess(y, x, 10 * unit, 2 * unit), 1);
  }
}

TEST_P(RowKernels, SiluMulEqualsTheReference) {
  for (auto type : {at::kFloat, at::kBFloat16}) {
    const Tensor gate_up = random({rows(), 2 * width()}, 1, type, 5);
    Tensor out = values(2, type), dgate_up = at::zeros({rows(), 2 * width()}, type);
    const Tensor dout = values(3, type);
    silu_mul(gate_up, out);
    silu_mul_backward(dout, gate_up, dgate_up);
    const double relative = type == at::kFloat ? 10 * kFloatUnit : kBf16Unit;
    EXPECT_LE(excess(out, reference::silu_mul(gate_up), 1e-30, relative), 1);
    // The derivative of silu passes through zero: terms up to 20 cancel there.
    EXPECT_LE(excess(dgate_up, reference::silu_mul_backward(dout, gate_up), 1000 * kFloatUnit, relative), 1);
  }
}

TEST(SiluMul, StaysFiniteForLargeGates) {
  Tensor gate_up = at::full({1, 4}, 1.0f), out = at::zeros({1, 2});
  gate_up.data_ptr<float>()[0] = -3000;
  gate_up.data_ptr<float>()[1] = 3000;
  silu_mul(gate_up, out);
  EXPECT_EQ(out.data_ptr<float>()[0], 0);
  EXPECT_EQ(out.data_ptr<float>()[1], 3000);
}

TEST_P(RowKernels, ConvertRoundsToNearestEvenAsTorch) {
  const Tensor x = values(1);
  Tensor narrow = at::zeros({rows(), width()}, at::kBFloat16), wide = at::zeros({rows(), width()});
  convert(x, narrow);
  EXPECT_TRUE(same_bits(narrow, x.to(at::kBFloat16)));
  convert(narrow, wide);
  EXPECT_TRUE(same_bits(wide, narrow.to(at::kFloat)));
}

TEST(Convert, TakesTiesToEvenAndKeepsInfinityAndNotANumber) {
  Tensor x = at::zeros({5}), y = at::zeros({5}, at::kBFloat16);
  float* data = x.data_ptr<float>();
  const float special[] = {0x1.01p0f, 0x1.03p0f, INFINITY, -NAN, 0x1.fffffep127f};
  std::copy_n(special, 5, data);
  convert(x, y);
  const uint16_t* bits = static_cast<const uint16_t*>(y.data_ptr());
  EXPECT_EQ(bits[0], 0x3f80);
  EXPECT_EQ(bits[1], 0x3f82);
  EXPECT_EQ(bits[2], 0x7f80);
  EXPECT_EQ(bits[3] & 0x7fff, 0x7fc0);
  EXPECT_EQ(bits[4], 0x7f80);
}

TEST_P(RowKernels, AddsRoundOnce) {
  const Tensor a = values(1), b = values(2, at::kBFloat16);
  Tensor out = values(3), rounded = values(3, at::kBFloat16);
  add_rounded(a, b, out);
  add_rounded(a, b, rounded);
  const float *x = a.data_ptr<float>(), *sum = out.data_ptr<float>();
  const Tensor wide = b.to(at::kFloat);
  for (int64_t i = 0; i < out.numel(); ++i) EXPECT_EQ(sum[i], x[i] + wide.data_ptr<float>()[i]);
  EXPECT_TRUE(same_bits(rounded, out.to(at::kBFloat16)));
  Tensor into = a.clone();
  add_into(into, wide);
  EXPECT_TRUE(same_bits(into, out));
}

TEST(Embedding, SelectsRowsOfItsBlockAndAddsGradientsInOrder) {
  const Tensor weight = random({10, 21}, 1), dout = random({6, 21}, 2);
  Tensor tokens = at::zeros({6}, at::kLong);
  const int64_t ids[] = {3, 12, 5, 12, 40, 2};
  std::copy_n(ids, 6, tokens.data_ptr<int64_t>());
  Tensor out = at::full({6, 21}, 5.0f), dweight = at::zeros({10, 21});
  embedding(weight, tokens, 3, out);
  EXPECT_LE(excess(out, reference::embedding(weight, tokens, 3), 1e-30, 0), 1);
  embedding_backward(dout, tokens, 3, dweight);
  EXPECT_LE(excess(dweight, reference::embedding_backward(dout, tokens, 3, 10), 1e-30, 2 * kFloatUnit), 1);
}

TEST_P(RowKernels, GiveTheSameBitsOnEveryInstructionSetAndThreadCount) {
  const Tensor x = values(1), weight = random({width()}, 2), gate_up = random({rows(), 2 * width()}, 3);
  Tensor y = values(4), rstd = at::zeros({rows()}), out = values(5);
  rms_norm(x, weight, 1e-5, y, rstd);
  silu_mul(gate_up, out);
  {
    WithThreads with(3);
    Tensor y3 = values(6), out3 = values(7);
    rms_norm(x, weight, 1e-5, y3, rstd);
    silu_mul(gate_up, out3);
    EXPECT_TRUE(same_bits(y3, y) && same_bits(out3, out));
  }
  for (const char* name : {"generic", "avx2", "avx512"}) {
    const Table* table = table_named(name);
    if (table == nullptr) continue;
    Tensor y2 = values(6), out2 = values(7);
    for (int64_t t = 0; t < rows(); ++t) {
      const float *from = x.data_ptr<float>() + t * width(),
                  *gate = gate_up.data_ptr<float>() + t * 2 * width();
      table->rms_norm({from, Type::f32, 0}, {weight.data_ptr(), Type::f32, 0}, 1e-5f,
                      {y2.data_ptr<float>() + t * width(), Type::f32, 0}, width());
      table->silu_mul({gate, Type::f32, 0}, {gate + width(), Type::f32, 0},
                      {out2.data_ptr<float>() + t * width(), Type::f32, 0}, width());
    }
    EXPECT_TRUE(same_bits(y2, y) && same_bits(out2, out)) << name;
  }
}

}  // namespace
}  // namespace tessera::kernels
