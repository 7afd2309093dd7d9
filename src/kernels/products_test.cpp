#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include "kernels/reference.h"
#include "kernels/scratch.h"
#include "kernels/table.h"
#include "kernels/testing.h"

namespace tessera::kernels {
namespace {

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

TEST_P(Products, WidenBf16AndRoundOnce) {
  const Tensor x = a(at::kBFloat16), y = b(at::kBFloat16), expected = reference::product(x, y);
  for (char form : kForms) {
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
  const Tensor a = random({70, 90}, 1), b = random({90, 130}, 2);
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
  for (const Shape& shape : {Shape{300, 130, 70}, Shape{64, 1000, 40}, Shape{500, 20, 200}}) {
    const Tensor a = random({shape.rows, shape.depth}, 1), b = random({shape.depth, shape.columns}, 2);
    for (char form : kForms) {
      const Tensor one = product_of(form, a, b, at::kFloat);
      for (int64_t threads : {2, 3, 7}) {
        WithThreads with(threads);
        EXPECT_TRUE(same_bits(product_of(form, a, b, at::kFloat), one)) << form << threads;
      }
    }
  }
}

TEST(Product, IsTheSameOnEveryInstructionSet) {
  const int64_t rows = 29, columns = 75, depth = 130;
  const Tensor a = random({rows, depth}, 1), b = random({columns, depth}, 2);
  const Tensor expected = reference::product(a, b.t());
  for (const char* name : {"generic", "avx2", "avx512"}) {
    const Table* table = table_named(name);
    if (table == nullptr) continue;
    Scratch panels(80 * depth);
    table->pack_transposed({b.data_ptr(), Type::f32, depth}, columns, depth, panels.data(), Type::f32);
    Tensor out = at::zeros({rows, columns});
    table->product({a.data_ptr<float>(),
                    table->row_tile * depth,
                    depth,
                    1,
                    {panels.data(), Type::f32, 16},
                    16 * depth,
                    rows,
                    columns,
                    depth,
                    out.data_ptr<float>(),
                    columns,
                    false});
    EXPECT_TRUE(same_bits(out, expected)) << name;
  }
}

}  // namespace
}  // namespace tessera::kernels
