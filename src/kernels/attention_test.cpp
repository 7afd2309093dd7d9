#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
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

// A cache whose blocks lie in a scattered order, with one sequence per document of `lengths`.
struct Server {
  static constexpr int64_t kBlocks = 64;
  int64_t block_tokens, heads, kv_heads, head_dim;
  Tensor k_cache, v_cache, block_table;

  Server(int64_t tokens_per_block, int64_t query_heads, int64_t key_heads, int64_t width, at::ScalarType type)
      : block_tokens(tokens_per_block),
        heads(query_heads),
        kv_heads(key_heads),
        head_dim(width),
        k_cache(at::full({kBlocks, block_tokens, kv_heads, width}, NAN, type)),
        v_cache(at::full({kBlocks, block_tokens, kv_heads, width}, NAN, type)),
        block_table(at::zeros({3, kBlocks / 3}, at::kInt)) {
    for (int64_t i = 0; i < block_table.numel(); ++i)
      block_table.data_ptr<int32_t>()[i] = static_cast<int32_t>((i * 29 + 5) % kBlocks);
  }

  Tensor slots(int64_t sequence, int64_t first, int64_t count) const {
    Tensor result = at::zeros({count}, at::kLong);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = first + i;
      const int64_t block = block_table.data_ptr<int32_t>()[sequence * block_table.size(1) + at / block_tokens];
      result.data_ptr<int64_t>()[i] = block * block_tokens + at % block_tokens;
    }
    return result;
  }

  void write(int64_t sequence, const Tensor& k, const Tensor& v) {
    write_kv(k, v, slots(sequence, 0, k.size(0)), k_cache, v_cache);
  }

  // Tokens [first, first + count) of one sequence.
  Tensor attend(int64_t sequence, const Tensor& q, int64_t first, double scale) const {
    const Tensor sequences = at::full({q.size(0)}, sequence, at::kInt);
    const Tensor positions = at::arange(first, first + q.size(0), at::kInt);
    Tensor out = at::full(q.sizes(), NAN, q.scalar_type());
    paged_attention(q, k_cache, v_cache, sequences, positions, block_table, scale, out);
    return out;
  }
};

class PagedAttention : public ::testing::TestWithParam<std::tuple<int64_t, at::ScalarType>> {};
INSTANTIATE_TEST_SUITE_P(Blocks, PagedAttention,
                         ::testing::Combine(::testing::Values(1, 7, 16, 40),
                                            ::testing::Values(at::kFloat, at::kBFloat16)));

TEST_P(PagedAttention, EqualsAttentionOverTheWholeSequenceInAnyChunks) {
  const auto [block_tokens, type] = GetParam();
  const Shape s{std::min<int64_t>(block_tokens * 20, 150), 4, 2, 24, 999};
  const Inputs in = inputs_of(s, type);
  Tensor expected = in.q.clone(), lse = at::zeros({s.tokens, s.heads});
  attention(in.q, in.k, in.v, in.start, scale_of(s), expected, lse);
  Server server(block_tokens, s.heads, s.kv_heads, s.head_dim, type);
  server.write(1, in.k, in.v);
  for (int64_t chunk : {int64_t{1}, int64_t{13}, s.tokens})
    for (int64_t first = 0; first < s.tokens; first += chunk) {
      const int64_t count = std::min(chunk, s.tokens - first);
      const Tensor out = server.attend(1, in.q.narrow(0, first, count), first, scale_of(s));
      ASSERT_TRUE(same_bits(out, expected.narrow(0, first, count))) << chunk << ' ' << first;
    }
}

TEST(PagedAttention, GivesTheSameBitsAloneAndAmongOthers) {
  Server server(16, 4, 1, 32, at::kFloat);
  const int64_t lengths[] = {37, 200, 140};
  std::vector<Tensor> queries, alone, sequences, positions;
  for (int64_t i = 0; i < 3; ++i) {
    const Inputs in = inputs_of({lengths[i], 4, 1, 32, 999});
    server.write(i, in.k.mul(static_cast<double>(i + 1)), in.v);
    const int64_t count = i == 1 ? 30 : 1;  // two decode, one prefills a chunk
    queries.push_back(in.q.narrow(0, lengths[i] - count, count));
    alone.push_back(server.attend(i, queries.back(), lengths[i] - count, 0.2));
    sequences.push_back(at::full({count}, i, at::kInt));
    positions.push_back(at::arange(lengths[i] - count, lengths[i], at::kInt));
  }
  const Tensor q = at::cat(queries);
  Tensor out = at::full(q.sizes(), NAN, at::kFloat);
  for (int64_t threads : {1, 3}) {
    WithThreads with(threads);
    paged_attention(q, server.k_cache, server.v_cache, at::cat(sequences), at::cat(positions),
                    server.block_table, 0.2, out);
    EXPECT_TRUE(same_bits(out, at::cat(alone)));
  }
}

}  // namespace
}  // namespace tessera::kernels
