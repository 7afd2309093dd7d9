#include <ATen/ops/abs.h>
#include <ATen/ops/all.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/le.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/zeros.h>

#include <cstring>
#include <random>
#include <vector>

#include "kernels/gemm_experts.h"
#include "kernels/reference.h"
#include "kernels/scratch.h"
#include "kernels/table.h"
#include "kernels/testing.h"

namespace tessera::kernels {
namespace {

using testing::kFloatUnit;
using testing::random;
using testing::same_bits;
using testing::strided;
using testing::WithThreads;

struct Shape {
  int64_t rows, columns, depth;
};

// Every tile height and width of every ISA, tails of all three dimensions, more than one block of k, empty
// ones.
const Shape kShapes[] = {{1, 1, 1},    {1, 16, 7},    {1, 200, 33},  {2, 31, 16},    {3, 48, 17},
                         {4, 17, 64},  {5, 100, 5},   {6, 16, 16},   {7, 33, 259},   {11, 130, 31},
                         {12, 96, 48}, {13, 97, 512}, {25, 15, 100}, {200, 40, 300}, {64, 192, 64},
                         {0, 8, 8},    {8, 0, 8},     {5, 7, 0}};

Tensor product_of(char form, const Tensor& a_MK, const Tensor& b_KN, at::ScalarType out_type,
                  const Tensor& start = {}, bool with_strides = false) {
  Tensor out = start.defined() ? start.clone() : at::full({a_MK.size(0), b_KN.size(1)}, 7.0f, out_type);
  auto stored = [&](const Tensor& x) { return with_strides ? strided(x.contiguous()) : x.contiguous(); };
  if (with_strides) out = strided(out);
  const bool accumulate = start.defined();
  if (form == 't') gemm_nt(stored(a_MK), stored(b_KN.t()), out, accumulate);
  if (form == 'n') gemm_nn(stored(a_MK), stored(b_KN), out, accumulate);
  if (form == 'l') gemm_tn(stored(a_MK.t()), stored(b_KN), out, accumulate);
  if (form == 'p') gemm_packed(stored(a_MK), PackedWeight(stored(b_KN.t())), out, accumulate);
  return out;
}
constexpr char kForms[] = {'t', 'n', 'l', 'p'};

class Products : public ::testing::TestWithParam<Shape> {
 protected:
  Tensor a(at::ScalarType type = at::kFloat) { return random({GetParam().rows, GetParam().depth}, 1, type); }
  Tensor b(at::ScalarType type = at::kFloat) { return random({GetParam().depth, GetParam().columns}, 2, type); }
};
INSTANTIATE_TEST_SUITE_P(Shapes, Products, ::testing::ValuesIn(kShapes));

TEST_P(Products, EqualTheChainOfFmaInAllBits) {
  const Tensor expected = reference::product(a(), b());
  for (char form : kForms) EXPECT_TRUE(same_bits(product_of(form, a(), b(), at::kFloat), expected)) << form;
}

TEST_P(Products, ContinueTheChainFromOutWhenAccumulating) {
  const Tensor start = random({GetParam().rows, GetParam().columns}, 3);
  const Tensor expected = reference::product(a(), b(), start);
  for (char form : kForms)
    EXPECT_TRUE(same_bits(product_of(form, a(), b(), at::kFloat, start), expected)) << form;
}

TEST_P(Products, OfBf16EqualTheChainOfPairsAndRoundOnce) {
  const Tensor x = a(at::kBFloat16), y = b(at::kBFloat16), expected = reference::product(x, y);
  const Tensor start = random({GetParam().rows, GetParam().columns}, 3);
  const Tensor continued = reference::product(x, y, start);
  for (char form : kForms) {
    EXPECT_TRUE(same_bits(product_of(form, x, y, at::kFloat, start), continued)) << form;
    EXPECT_TRUE(same_bits(product_of(form, x, y, at::kFloat), expected)) << form;
    EXPECT_TRUE(same_bits(product_of(form, x, y, at::kBFloat16), expected.to(at::kBFloat16))) << form;
  }
}

TEST_P(Products, IgnoreStridesAndOffsets) {
  for (auto type : {at::kFloat, at::kBFloat16}) {
    const Tensor x = a(type), y = b(type), expected = reference::product(x, y).to(type);
    for (char form : kForms) EXPECT_TRUE(same_bits(product_of(form, x, y, type, {}, true), expected)) << form;
  }
}

TEST(Product, OfPartsEqualsPartOfTheWhole) {
  for (auto type : {at::kFloat, at::kBFloat16}) {
    const Tensor a = random({70, 90}, 1, type), b = random({90, 130}, 2, type);
    const Tensor whole = reference::product(a, b);
    for (char form : kForms)
      for (int64_t first : {0, 1, 13, 37})
        for (int64_t count : {1, 5, 16, 33}) {
          const Tensor rows = product_of(form, a.narrow(0, first, count), b, at::kFloat);
          EXPECT_TRUE(same_bits(rows, whole.narrow(0, first, count))) << form << first << ' ' << count;
          const Tensor columns = product_of(form, a, b.narrow(1, first, count), at::kFloat);
          EXPECT_TRUE(same_bits(columns, whole.narrow(1, first, count))) << form << first << ' ' << count;
        }
  }
}

// 8 bits of mantissa: products are exact in float32, so only the K additions round.
TEST(Product, OfBf16IsWithinTheBoundOfItsSum) {
  const int64_t depth = 1000;
  const Tensor a = random({20, depth}, 1, at::kBFloat16), b = random({depth, 40}, 2, at::kBFloat16);
  const Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
  const Tensor exact = x.matmul(y), size = x.abs().matmul(y.abs());
  for (char form : kForms) {
    const Tensor error = product_of(form, a, b, at::kFloat).to(at::kDouble).sub(exact).abs();
    EXPECT_TRUE(error.le(size.mul(static_cast<double>(depth) * kFloatUnit)).all().item().toBool()) << form;
  }
}

TEST(Product, WritesNothingBesideItsRows) {
  const Tensor a = random({5, 20}, 1), b = random({20, 21}, 2);
  Tensor buffer = at::full({7, 40}, 7.0f);
  Tensor out = buffer.narrow(0, 1, 5).narrow(1, 8, 21);
  gemm_nn(a, b, out);
  Tensor inside = buffer.clone();
  inside.narrow(0, 1, 5).narrow(1, 8, 21).fill_(7.0f);
  EXPECT_TRUE(same_bits(inside, at::full({7, 40}, 7.0f)));
}

TEST(Product, IsTheSameOnAnyNumberOfThreads) {
  for (auto type : {at::kFloat, at::kBFloat16})
    for (const Shape& shape :
         {Shape{300, 130, 70}, Shape{64, 1000, 40}, Shape{500, 20, 200}, Shape{300, 300, 700}}) {
      const Tensor a = random({shape.rows, shape.depth}, 1, type),
                   b = random({shape.depth, shape.columns}, 2, type);
      for (char form : kForms) {
        const Tensor one = product_of(form, a, b, type);
        for (int64_t threads : {2, 3, 7}) {
          WithThreads with(threads);
          EXPECT_TRUE(same_bits(product_of(form, a, b, type), one)) << form << threads;
        }
      }
    }
}

// out = start + a[rows, depth] * b[columns, depth]^T by the table of one level.
Tensor product_by(const Table& table, const Tensor& a, const Tensor& b, const Tensor& start) {
  const bool pairs = a.scalar_type() == at::kBFloat16;
  const int64_t rows = a.size(0), columns = b.size(0), steps = a.size(1) / (pairs ? 2 : 1);
  Scratch panels((columns + 15) / 16 * 16 * steps);
  const Type type = pairs ? Type::bf16 : Type::f32;
  table.pack_transposed({b.data_ptr(), type, b.size(1)}, columns, b.size(1), panels.data());
  Tensor out = at::zeros({rows, columns});
  const Product product{.a = static_cast<const float*>(a.data_ptr()),
                        .a_tile = table.row_tile * steps,
                        .a_row = steps,
                        .a_k = 1,
                        .b = panels.data(),
                        .b_panel = 16 * steps,
                        .b_k = 16,
                        .rows = rows,
                        .columns = columns,
                        .k = steps,
                        .start = start.data_ptr<float>(),
                        .start_row = columns,
                        .c = {out.data_ptr(), Type::f32, columns}};
  (pairs ? table.product_pairs : table.product)(product);
  return out;
}

// The levels that this processor has.
std::vector<const Table*> tables() {
  std::vector<const Table*> result;
  for (const char* name : {"generic", "avx2", "avx512", "avx512bf16"})
    if (const Table* table = table_named(name)) result.push_back(table);
  return result;
}

TEST(Product, IsTheSameOnEveryInstructionSet) {
  for (auto type : {at::kFloat, at::kBFloat16}) {
    const Tensor a = random({29, 130}, 1, type), b = random({75, 130}, 2, type), start = random({29, 75}, 3);
    const Tensor expected = reference::product(a, b.t(), start);
    for (const Table* table : tables())
      EXPECT_TRUE(same_bits(product_by(*table, a, b, start), expected)) << table->name;
  }
}

TEST(ExpertProducts, EqualThoseOfEachExpertAlone) {
  constexpr int64_t kExperts = 5, kN = 200, kK = 70;
  const std::vector<int64_t> first = {0, 3, 3, 20, 21, 60};  // one expert without rows
  for (auto type : {at::kFloat, at::kBFloat16})
    for (int64_t threads : {1, 3}) {
      WithThreads with(threads);
      const Tensor rows = random({first.back(), kK}, 1, type);
      std::vector<PackedWeight> weights;
      std::vector<const PackedWeight*> pointers;
      Tensor expected = at::zeros({first.back(), kN}, type), out = at::ones({first.back(), kN}, type);
      for (int64_t e = 0; e < kExperts; ++e)
        weights.emplace_back(random({kN, kK}, static_cast<uint64_t>(e + 2), type));
      for (size_t e = 0; e < weights.size(); ++e) {
        pointers.push_back(&weights[e]);
        Tensor part = expected.narrow(0, first[e], first[e + 1] - first[e]);
        gemm_packed(rows.narrow(0, first[e], part.size(0)), weights[e], part);
      }
      gemm_experts(rows, first, pointers, out);
      EXPECT_TRUE(same_bits(out, expected)) << threads;
    }
}

// Any bits at all, but no NaN: subnormal numbers, sums that cancel or overflow.
Tensor any_bits(at::IntArrayRef sizes, uint64_t seed, at::ScalarType type, int exponents) {
  std::mt19937_64 engine(seed);
  Tensor result = at::empty(sizes, type);
  for (int64_t i = 0; i < result.numel(); ++i) {
    const uint32_t exponent = static_cast<uint32_t>(engine() % static_cast<uint64_t>(exponents));
    const uint32_t bits = (static_cast<uint32_t>(engine()) & 0x807fffffu) | exponent << 23;
    if (type == at::kFloat)
      std::memcpy(result.data_ptr<float>() + i, &bits, 4);
    else
      static_cast<uint16_t*>(result.data_ptr())[i] = static_cast<uint16_t>(bits >> 16);
  }
  return result;
}

TEST(Product, OfPairsTreatsSubnormalNumbersAsTheInstructionDoes) {
  // Exponents below 128 make values below 2: most products are subnormal or near it.
  for (int exponents : {64, 128, 192}) {
    const Tensor a = any_bits({40, 6}, 1, at::kBFloat16, exponents),
                 b = any_bits({50, 6}, 2, at::kBFloat16, exponents);
    const Tensor start = any_bits({40, 50}, 3, at::kFloat, exponents / 8);
    const Tensor expected = reference::product(a, b.t(), start);
    for (const Table* table : tables())
      EXPECT_TRUE(same_bits(product_by(*table, a, b, start), expected)) << table->name << exponents;
  }
}

}  // namespace
}  // namespace tessera::kernels
