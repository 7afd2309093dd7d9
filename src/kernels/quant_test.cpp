#include "kernels/quant.h"

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Half.h>

#include <cmath>
#include <string>
#include <vector>

#include "kernels/quant_table.h"
#include "kernels/testing.h"

namespace tessera::kernels {
namespace {

using testing::excess;
using testing::random;
using testing::same_bits;
using testing::strided;
using testing::WithThreads;

constexpr QuantKind kKinds[] = {QuantKind::int8, QuantKind::int4, QuantKind::int4_offset, QuantKind::int4_zero};

// A weight as plain numbers: the integers and factors of each group, [n][block][group].
struct Plain {
  QuantShape shape;
  std::vector<QuantGroup> groups;
  const QuantGroup& at(int64_t n, int64_t block, int64_t group) const {
    return groups[static_cast<size_t>((n * shape.blocks + block) * shape.block_groups() + group)];
  }
  float value(int64_t n, int64_t k) const {
    const int64_t width = shape.k / shape.blocks, within = k % width;
    float values[kQuantGroup];
    dequantize_group(shape.kind, at(n, k / width, within / kQuantGroup), values);
    return values[within % kQuantGroup];
  }
};

// Random integers over their whole range.
Plain random_weight(QuantKind kind, int64_t n, int64_t k, int64_t blocks, uint64_t seed) {
  Plain plain{{.kind = kind, .n = n, .k = k, .blocks = blocks}, {}};
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal(0, 0.02f);
  for (int64_t i = 0; i < n * blocks * plain.shape.block_groups(); ++i) {
    QuantGroup& group = plain.groups.emplace_back();
    for (uint8_t& q : group.q) q = static_cast<uint8_t>(engine() % (kind == QuantKind::int8 ? 256 : 16));
    group.scale = c10::Half(normal(engine)).x;
    if (kind == QuantKind::int4_offset) group.offset = c10::Half(normal(engine)).x;
    if (kind == QuantKind::int4_zero) group.offset = c10::Half(-static_cast<float>(engine() % 17)).x;
  }
  return plain;
}

QuantWeight packed(const Plain& plain) {
  const QuantShape& shape = plain.shape;
  Tensor bytes = at::zeros({shape.bytes()}, at::kByte);
  std::span<uint8_t> to(bytes.data_ptr<uint8_t>(), static_cast<size_t>(bytes.numel()));
  for (int64_t n = 0; n < shape.n; ++n)
    for (int64_t b = 0; b < shape.blocks; ++b)
      for (int64_t g = 0; g < shape.block_groups(); ++g) set_group(shape, to, n, b, g, plain.at(n, b, g));
  return {shape, bytes};
}

struct PlainRow {
  std::vector<int> q, sum;
  std::vector<float> scale;
};
// One block of a row of activations, by the words of quant.h.
PlainRow quantized(const float* x, int64_t width) {
  PlainRow row;
  for (int64_t first = 0; first < width; first += kQuantGroup) {
    const int64_t end = std::min(width, first + kQuantGroup);
    float largest = 0;
    for (int64_t i = first; i < end; ++i) largest = std::max(largest, std::abs(x[i]));
    const float scale = largest / 127.0f;
    row.scale.push_back(scale);
    row.sum.push_back(0);
    for (int64_t i = first; i < first + kQuantGroup; ++i) {
      const float value = i < end && scale > 0 ? std::nearbyintf(x[i] * (1.0f / scale)) : 0.0f;
      row.q.push_back(static_cast<int>(value));
      row.sum.back() += row.q.back();
    }
  }
  return row;
}

float chain(const PlainRow& a, const Plain& w, int64_t n, int64_t block) {
  const int zero = w.shape.kind == QuantKind::int8 ? 128 : w.shape.kind == QuantKind::int4 ? 8 : 0;
  float acc = 0;
  for (int64_t g = 0; g < w.shape.block_groups(); ++g) {
    const QuantGroup& group = w.at(n, block, g);
    const auto at = static_cast<size_t>(g);
    int dot = 0;
    for (int64_t i = 0; i < kQuantGroup; ++i)
      dot += (group.q[i] - zero) * a.q[static_cast<size_t>(g * kQuantGroup + i)];
    const float scale = c10::Half(group.scale, c10::Half::from_bits());
    const float offset = c10::Half(group.offset, c10::Half::from_bits());
    acc = std::fma(static_cast<float>(dot), scale * a.scale[at], acc);
    if (w.shape.kind == QuantKind::int4_offset)
      acc = std::fma(offset, a.scale[at] * static_cast<float>(a.sum[at]), acc);
    if (w.shape.kind == QuantKind::int4_zero)
      acc = std::fma(offset * scale, a.scale[at] * static_cast<float>(a.sum[at]), acc);
  }
  return acc;
}

// The product as quant.h defines it.
Tensor expected_product(const Tensor& a_MK, const Plain& w) {
  const Tensor x = a_MK.to(at::kFloat).contiguous();
  const int64_t rows = x.size(0), width = w.shape.k / w.shape.blocks;
  Tensor out = at::zeros({rows, w.shape.n});
  auto to = out.accessor<float, 2>();
  for (int64_t m = 0; m < rows; ++m)
    for (int64_t n = 0; n < w.shape.n; ++n) {
      std::vector<float> parts;
      for (int64_t b = 0; b < w.shape.blocks; ++b)
        parts.push_back(chain(quantized(x.data_ptr<float>() + m * w.shape.k + b * width, width), w, n, b));
      for (size_t step = 1; step < parts.size(); step *= 2)
        for (size_t i = 0; i + step < parts.size(); i += 2 * step) parts[i] += parts[i + step];
      to[m][n] = parts[0];
    }
  return out;
}

Tensor product(const Tensor& a, std::span<const QuantWeight> weights, at::ScalarType type = at::kFloat) {
  int64_t n = 0;
  for (const QuantWeight& weight : weights) n += weight.n();
  Tensor out = at::full({a.size(0), n}, 7.0f, type);
  gemm_quant(a, weights, out);
  return out;
}
Tensor product(const Tensor& a, const QuantWeight& weight) {
  return product(a, {&weight, 1});
}

struct Case {
  int64_t rows, columns, depth, blocks;
};
// Every height of a tile, more than one chunk of rows, tails of n and k, blocks that end inside a group, more
// groups than few rows let wait.
const Case kCases[] = {{1, 16, 32, 1},   {1, 1, 1, 1},    {2, 17, 33, 1},   {3, 40, 64, 2},   {4, 16, 172, 4},
                       {5, 33, 96, 1},   {7, 48, 256, 4}, {11, 20, 100, 1}, {12, 31, 64, 1},  {13, 16, 128, 2},
                       {30, 50, 160, 1}, {97, 18, 64, 2}, {0, 16, 32, 1},   {1, 16, 8240, 1}, {2, 20, 4200, 1}};

class Quant : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Shapes, Quant, ::testing::ValuesIn(kCases));

TEST_P(Quant, ProductsEqualTheirDefinitionInAllBits) {
  const Case& c = GetParam();
  for (QuantKind kind : kKinds) {
    const Plain plain = random_weight(kind, c.columns, c.depth, c.blocks, 3);
    for (auto type : {at::kFloat, at::kBFloat16}) {
      const Tensor a = random({c.rows, c.depth}, 1, type);
      const Tensor expected = expected_product(a, plain);
      EXPECT_TRUE(same_bits(product(a, packed(plain)), expected)) << to_string(kind);
      EXPECT_TRUE(same_bits(product(strided(a), packed(plain)), expected)) << to_string(kind);
    }
  }
}

// The definition itself against the product of the numbers that the weight stands for: activations are off by
// half a step of largest / 127 at most.
TEST(QuantDefinition, IsNearTheProductInDouble) {
  for (QuantKind kind : kKinds) {
    const Plain plain = random_weight(kind, 24, 256, 2, 5);
    const Tensor a = random({9, 256}, 6);
    const Tensor value = product(a, packed(plain));
    auto x = a.accessor<float, 2>(), y = value.accessor<float, 2>();
    for (int64_t m = 0; m < 9; ++m)
      for (int64_t n = 0; n < 24; ++n) {
        double exact = 0, bound = 0;
        for (int64_t k = 0; k < 256; ++k) exact += static_cast<double>(x[m][k]) * plain.value(n, k);
        for (int64_t g = 0; g < 256; g += kQuantGroup) {
          double largest = 0;
          for (int64_t k = g; k < g + kQuantGroup; ++k) largest = std::max(largest, std::abs(double(x[m][k])));
          for (int64_t k = g; k < g + kQuantGroup; ++k) bound += largest / 254 * std::abs(plain.value(n, k));
        }
        EXPECT_LE(std::abs(y[m][n] - exact), bound * 1.0001 + 1e-5) << to_string(kind);
      }
  }
}

TEST(QuantTables, GiveTheSameBits) {
  const int64_t groups = 5;
  for (QuantKind kind : kKinds) {
    const Plain plain = random_weight(kind, 16, groups * 32, 1, 8);
    const QuantWeight weight = packed(plain);
    const Tensor a = random({29, groups * 32}, 9), expected = expected_product(a, plain);
    int tested = 0;
    for (const char* name : {"generic", "avx2", "avx512vnni"}) {
      const QuantTable* level = quant_table_named(name);
      if (level == nullptr) continue;
      std::vector<int8_t> q(29 * groups * 32);
      std::vector<float> scale(29 * groups);
      std::vector<int32_t> sum(29 * groups);
      for (size_t r = 0; r < 29; ++r)
        level->quantize_row(a.data_ptr<float>() + r * groups * 32, groups * 32, q.data() + r * groups * 32,
                            scale.data() + r * groups, sum.data() + r * groups);
      Tensor out = at::zeros({29, 16});
      const QuantTile tile{weight.tile(0, 0), groups,     q.data(),
                           scale.data(),      sum.data(), 29,
                           groups * 32,       groups,     out.data_ptr<float>()};
      auto run = kind == QuantKind::int8          ? level->tile_int8
                 : kind == QuantKind::int4        ? level->tile_int4
                 : kind == QuantKind::int4_offset ? level->tile_int4_offset
                                                  : level->tile_int4_zero;
      run(tile);
      EXPECT_TRUE(same_bits(out, expected)) << name << ' ' << to_string(kind);
      ++tested;
    }
    EXPECT_GE(tested, 1);
  }
}

TEST(QuantProduct, OfARowDoesNotDependOnItsNeighboursOrOnThreads) {
  const Tensor a = random({130, 192}, 1);
  for (QuantKind kind : kKinds) {
    const QuantWeight weight = packed(random_weight(kind, 300, 192, 2, 2));
    const Tensor whole = product(a, weight);
    for (int64_t first : {0, 1, 50, 100})
      for (int64_t count : {1, 3, 12, 30})
        EXPECT_TRUE(same_bits(product(a.narrow(0, first, count), weight), whole.narrow(0, first, count)));
    for (int64_t threads : {2, 5}) {
      WithThreads with(threads);
      EXPECT_TRUE(same_bits(product(a, weight), whole));
    }
  }
}

TEST(QuantProduct, OfPartsOfAWeightIsPartOfTheProduct) {
  const Tensor a = random({6, 256}, 1);
  for (QuantKind kind : kKinds) {
    const Plain plain = random_weight(kind, 70, 256, 4, 2);
    const QuantWeight weight = packed(plain);
    const Tensor whole = product(a, weight);
    EXPECT_TRUE(same_bits(product(a, weight.rows(32, 30)), whole.narrow(1, 32, 30)));
    const QuantWeight sides[] = {weight.rows(48, 22), weight.rows(0, 16)};
    const Tensor both = product(a, sides);
    EXPECT_TRUE(same_bits(both.narrow(1, 0, 22), whole.narrow(1, 48, 22)));
    EXPECT_TRUE(same_bits(both.narrow(1, 22, 16), whole.narrow(1, 0, 16)));
    // Two ranks with two blocks each: the tree's upper level is their sum.
    const Tensor left = product(a.narrow(1, 0, 128), weight.block_range(0, 2));
    const Tensor right = product(a.narrow(1, 128, 128), weight.block_range(2, 2));
    Tensor sum = at::full(whole.sizes(), 0.0f);
    add_rounded(left, right, sum);
    EXPECT_TRUE(same_bits(sum, whole));
  }
}

TEST(QuantProduct, RoundsOnceToBf16) {
  const Tensor a = random({5, 64}, 1);
  const QuantWeight weight = packed(random_weight(QuantKind::int4, 20, 64, 1, 2));
  EXPECT_TRUE(same_bits(product(a, {&weight, 1}, at::kBFloat16), product(a, weight).to(at::kBFloat16)));
}

TEST(QuantWeights, GroupsComeBackAsTheyWereSet) {
  for (QuantKind kind : kKinds) {
    const Plain plain = random_weight(kind, 18, 132, 2, 4);
    const QuantShape& shape = plain.shape;
    Tensor bytes = at::zeros({shape.bytes()}, at::kByte);
    std::span<uint8_t> to(bytes.data_ptr<uint8_t>(), static_cast<size_t>(bytes.numel()));
    for (int64_t n = 0; n < 18; ++n)
      for (int64_t b = 0; b < 2; ++b)
        for (int64_t g = 0; g < shape.block_groups(); ++g) set_group(shape, to, n, b, g, plain.at(n, b, g));
    for (int64_t n = 0; n < 18; ++n)
      for (int64_t b = 0; b < 2; ++b)
        for (int64_t g = 0; g < shape.block_groups(); ++g) {
          const QuantGroup group = get_group(shape, to, n, b, g), &want = plain.at(n, b, g);
          EXPECT_TRUE(std::equal(group.q, group.q + 32, want.q) && group.scale == want.scale &&
                      group.offset == want.offset);
        }
  }
}

// Half a step, and what half precision of the scale adds over the whole range of integers.
TEST(QuantWeights, AreWithinHalfAStepOfTheValues) {
  const Tensor values = random({32}, 7, at::kFloat, 0.02);
  std::span<const float> x(values.data_ptr<float>(), 32);
  const double largest = values.abs().max().item<float>();
  const double range = values.max().item<float>() - values.min().item<float>();
  const double steps[] = {largest / 127, largest / 8, range / 15, range / 15};
  for (int kind = 0; kind < 4; ++kind) {
    float back[32];
    dequantize_group(kKinds[kind], quantize_group(kKinds[kind], x), back);
    double worst = 0;
    for (size_t i = 0; i < 32; ++i) worst = std::max(worst, std::abs(double(back[i]) - x[i]));
    // -largest has no integer of its own when int4 spends -8 on +largest: it may be a whole step off. So may
    // the ends be when int4_zero rounds its zero.
    const double bound = steps[kind] * (kind == 1 || kind == 3 ? 1.0 : 0.5) + largest * 0x1p-10;
    EXPECT_LE(worst, bound) << to_string(kKinds[kind]);
    EXPECT_GE(worst, steps[kind] * 0.2);
  }
  for (QuantKind kind : kKinds) {
    float back[32], zeros[32] = {};
    dequantize_group(kind, quantize_group(kind, zeros), back);
    for (float value : back) EXPECT_EQ(value, 0.0f);
  }
}

Tensor silu_mul_of(const Tensor& gate, const Tensor& up) {
  Tensor both = at::full({gate.size(0), 2 * gate.size(1)}, 0.0f), out = at::full(gate.sizes(), 0.0f);
  both.narrow(1, 0, gate.size(1)).copy_(gate);
  both.narrow(1, gate.size(1), gate.size(1)).copy_(up);
  silu_mul(both, out);
  return out;
}

TEST(QuantFfn, EqualsItsProductsOneByOneForEveryExpert) {
  const int64_t hidden = 96, width = 88;
  const std::vector<int64_t> first = {0, 3, 3, 120, 121};
  for (QuantKind kind : kKinds) {
    std::vector<QuantFfn> experts;
    for (uint64_t e = 0; e < 4; ++e)
      experts.push_back({packed(random_weight(kind, width, hidden, 1, 10 + e)),
                         packed(random_weight(kind, width, hidden, 1, 20 + e)),
                         packed(random_weight(kind, hidden, width, 4, 30 + e))});
    const Tensor rows = random({121, hidden}, 4);
    Tensor expected = at::full({121, hidden}, 0.0f);
    for (size_t e = 0; e < 4; ++e) {
      const Tensor x = rows.narrow(0, first[e], first[e + 1] - first[e]);
      if (x.size(0) == 0) continue;
      const Tensor act = silu_mul_of(product(x, experts[e].gate), product(x, experts[e].up));
      expected.narrow(0, first[e], x.size(0)).copy_(product(act, experts[e].down));
    }
    for (int64_t threads : {1, 2, 3}) {
      WithThreads with(threads);
      Tensor out = at::full({121, hidden}, 7.0f);
      ffn_quant(rows, first, experts, out);
      EXPECT_TRUE(same_bits(out, expected)) << to_string(kind) << threads;
    }
  }
}

TEST(QuantFfn, GivesTheBlocksOfDownApart) {
  const std::vector<int64_t> first = {0, 2, 2, 7};
  std::vector<QuantFfn> experts;
  for (uint64_t e = 0; e < 3; ++e)
    experts.push_back({packed(random_weight(QuantKind::int4, 88, 96, 1, 10 + e)),
                       packed(random_weight(QuantKind::int4, 88, 96, 1, 20 + e)),
                       packed(random_weight(QuantKind::int4, 40, 88, 4, 30 + e))});
  const Tensor rows = random({7, 96}, 4);
  Tensor whole = at::full({7, 40}, 7.0f), parts = at::full({4, 7, 40}, 7.0f);
  ffn_quant(rows, first, experts, whole);
  ffn_quant(rows, first, experts, parts);
  EXPECT_TRUE(same_bits(parts[0].add(parts[1]).add(parts[2].add(parts[3])), whole));
  // Block 1 alone: what a rank with that block computes.
  std::vector<QuantFfn> part;
  for (const QuantFfn& ffn : experts)
    part.push_back({ffn.gate.any_rows(22, 22), ffn.up.any_rows(22, 22), ffn.down.block_range(1, 1)});
  Tensor one = at::full({7, 40}, 7.0f);
  ffn_quant(rows, first, part, one);
  EXPECT_TRUE(same_bits(one, parts[1]));
}

TEST(QuantWeights, RowsAreLookedUpAsTheNumbersTheyStandFor) {
  for (QuantKind kind : kKinds) {
    const Plain plain = random_weight(kind, 37, 72, 2, 4);
    const QuantWeight weight = packed(plain);
    const Tensor tokens = at::full({4}, int64_t{0}, at::kLong);
    for (int64_t i = 0; i < 4; ++i) tokens.data_ptr<int64_t>()[i] = std::vector<int64_t>{105, 100, 99, 136}[i];
    Tensor out = at::full({4, 72}, 7.0f);
    embedding_quant(weight, tokens, 100, out);
    for (int64_t k = 0; k < 72; ++k) {
      EXPECT_EQ(out[0][k].item<float>(), plain.value(5, k));
      EXPECT_EQ(out[1][k].item<float>(), plain.value(0, k));
      EXPECT_EQ(out[2][k].item<float>(), 0.0f);
      EXPECT_EQ(out[3][k].item<float>(), plain.value(36, k));
    }
  }
}

TEST(QuantFfn, QuantisesAWholeWeightAsItsGroups) {
  const Tensor weight = random({21, 72}, 3, at::kFloat, 0.02);
  for (QuantKind kind : kKinds) {
    Plain plain{{.kind = kind, .n = 21, .k = 72, .blocks = 2}, {}};
    for (int64_t n = 0; n < 21; ++n)
      for (int64_t b = 0; b < 2; ++b)
        for (int64_t k = 0; k < 36; k += 32)
          plain.groups.push_back(quantize_group(kind, {weight.data_ptr<float>() + n * 72 + b * 36 + k,
                                                       static_cast<size_t>(std::min<int64_t>(32, 36 - k))}));
    const Tensor a = random({4, 72}, 5);
    EXPECT_TRUE(same_bits(product(a, quantize(kind, weight, 2)), expected_product(a, plain)));
  }
}

}  // namespace
}  // namespace tessera::kernels
