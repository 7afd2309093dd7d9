#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include "kernels/kv_pages.h"
#include "kernels/reference.h"
#include "kernels/testing.h"

namespace tessera::kernels {
namespace {

using testing::excess;
using testing::kBf16Unit;
using testing::random;
using testing::same_bits;
using testing::WithThreads;

struct Shape {
  int64_t tokens, heads, kv_heads, head_dim;
};

struct Inputs {
  Tensor q, k, v;
};
Inputs inputs_of(const Shape& s, KvType type, uint64_t seed = 1) {
  const auto dtype = type == KvType::f32 ? at::kFloat : at::kBFloat16;
  return {random({s.tokens, s.heads, s.head_dim}, seed, dtype, 2),
          random({s.tokens, s.kv_heads, s.head_dim}, seed + 1, dtype),
          random({s.tokens, s.kv_heads, s.head_dim}, seed + 2, dtype)};
}
double scale_of(const Shape& s) {
  return 1 / std::sqrt(static_cast<double>(s.head_dim));
}

// A cache whose blocks lie in a scattered order, with one sequence per row of the table. Whatever was not
// written is no number.
struct Server {
  static constexpr int64_t kBlocks = 64;
  int64_t block_tokens;
  KvPages pages;
  Tensor block_table = at::zeros({3, kBlocks / 3}, at::kInt);

  Server(KvType type, const Shape& s, int64_t tokens_per_block = 16, int64_t latent = 0)
      : block_tokens(tokens_per_block),
        pages({.type = type,
               .block_tokens = tokens_per_block,
               .heads = s.kv_heads,
               .head_dim = s.head_dim,
               .latent = latent},
              kBlocks) {
    for (int64_t i = 0; i < kBlocks; ++i) std::ranges::fill(pages.block(i), std::byte{0xff});
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

  void write(int64_t sequence, const Tensor& k, const Tensor& v, int64_t first = 0) {
    write_kv(k, v, slots(sequence, first, k.size(0)), pages);
  }

  // Tokens [first, first + count) of one sequence.
  Tensor attend(int64_t sequence, const Tensor& q, int64_t first, double scale,
                const PagedOptions& options = {}) const {
    const Tensor sequences = at::full({q.size(0)}, sequence, at::kInt);
    const Tensor positions = at::arange(first, first + q.size(0), at::kInt);
    Tensor out = at::full({q.size(0), q.size(1), pages.shape().value_dim()}, NAN, q.scalar_type());
    paged_attention(q, pages, sequences, positions, block_table, scale, out, options);
    return out;
  }

  // Writes and attends chunk by chunk, as a server does.
  Tensor run(const Inputs& in, int64_t chunk, double scale, const PagedOptions& options = {}) {
    std::vector<Tensor> parts;
    for (int64_t first = 0; first < in.q.size(0); first += chunk) {
      const int64_t count = std::min(chunk, in.q.size(0) - first);
      write(1, in.k.narrow(0, first, count), in.v.defined() ? in.v.narrow(0, first, count) : in.v, first);
      parts.push_back(attend(1, in.q.narrow(0, first, count), first, scale, options));
    }
    return at::cat(parts);
  }
};

// Widths with and without a rest, an odd one, groups of 1, 2 and 4, tiles that end within a block.
const Shape kShapes[] = {{150, 4, 2, 24}, {200, 4, 1, 64}, {131, 2, 2, 25}, {90, 8, 2, 128}, {40, 1, 1, 8}};
const KvType kTypes[] = {KvType::f32, KvType::bf16, KvType::int8, KvType::fp8};

class Paged : public ::testing::TestWithParam<std::tuple<Shape, KvType>> {
 protected:
  Shape shape() const { return std::get<0>(GetParam()); }
  KvType type() const { return std::get<1>(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(Types, Paged,
                         ::testing::Combine(::testing::ValuesIn(kShapes), ::testing::ValuesIn(kTypes)));

TEST_P(Paged, GivesTheSameBitsInAnyChunksBlocksAndThreads) {
  const Inputs in = inputs_of(shape(), type());
  const Tensor whole = Server(type(), shape()).run(in, shape().tokens, scale_of(shape()));
  for (int64_t chunk : {1, 13, 64})
    EXPECT_TRUE(same_bits(Server(type(), shape()).run(in, chunk, scale_of(shape())), whole)) << chunk;
  EXPECT_TRUE(same_bits(Server(type(), shape(), 48).run(in, 50, scale_of(shape())), whole));
  WithThreads with(3);
  EXPECT_TRUE(same_bits(Server(type(), shape()).run(in, shape().tokens, scale_of(shape())), whole));
}

// What an element of the cache may be off by, relative to the largest of its token's head: half a step.
double stored_error(KvType type) {
  return type == KvType::int8 ? 0.5 / 127 : type == KvType::fp8 ? 1.0 / 16 : 0;
}

TEST_P(Paged, IsNearTheReference) {
  const Inputs in = inputs_of(shape(), type());
  const Tensor start = at::zeros({shape().tokens}, at::kInt);
  const auto expected = reference::attention(in.q, in.k, in.v, start, scale_of(shape()));
  const Tensor out = Server(type(), shape()).run(in, 30, scale_of(shape()));
  // Values of size up to 4: a weight is rounded once, the result once. In bytes a score of queries of size 2
  // moves by 2 * error * sqrt(E) * scale = 2 * error times the largest key, about 3.5, and weights by as much;
  // sums over keys take away much of it.
  const double rounding = type() == KvType::f32 ? 1e-5 : 4 * kBf16Unit;
  EXPECT_LE(excess(out, expected.out, rounding + 8 * stored_error(type()), rounding), 1);
}

TEST_P(Paged, OfOneTokenIsItsValue) {
  Shape one = shape();
  one.tokens = 1;
  const Inputs in = inputs_of(one, type());
  const Tensor out = Server(type(), one).run(in, 1, 1.0);
  const int64_t group = one.heads / one.kv_heads;
  for (int64_t h = 0; h < one.heads; ++h) {
    const Tensor value = in.v.select(1, h / group).to(at::kDouble);
    const double largest = value.abs().max().item<double>();
    EXPECT_LE(excess(out.select(1, h), value, stored_error(type()) * largest + 1e-6, 2 * kBf16Unit), 1);
  }
}

TEST(PagedFloats, EqualAttentionOverTheWholeSequence) {
  for (const Shape& s : kShapes) {
    const Inputs in = inputs_of(s, KvType::f32);
    Tensor expected = in.q.clone(), lse = at::zeros({s.tokens, s.heads});
    attention(in.q, in.k, in.v, at::zeros({s.tokens}, at::kInt), scale_of(s), expected, lse);
    EXPECT_TRUE(same_bits(Server(KvType::f32, s).run(in, 17, scale_of(s)), expected)) << s.head_dim;
  }
}

TEST(PagedAttention, GivesTheSameBitsAloneAndAmongOthers) {
  for (KvType type : kTypes) {
    const Shape shape{0, 4, 1, 32};
    Server server(type, shape);
    const int64_t lengths[] = {37, 200, 140};
    std::vector<Tensor> queries, alone, sequences, positions;
    for (int64_t i = 0; i < 3; ++i) {
      const Inputs in = inputs_of({lengths[i], 4, 1, 32}, type, static_cast<uint64_t>(10 * i + 1));
      server.write(i, in.k, in.v);
      const int64_t count = i == 1 ? 30 : 1;  // two decode, one prefills a chunk
      queries.push_back(in.q.narrow(0, lengths[i] - count, count));
      alone.push_back(server.attend(i, queries.back(), lengths[i] - count, 0.2));
      sequences.push_back(at::full({count}, i, at::kInt));
      positions.push_back(at::arange(lengths[i] - count, lengths[i], at::kInt));
    }
    const Tensor q = at::cat(queries);
    Tensor out = at::full(q.sizes(), NAN, q.scalar_type());
    for (int64_t threads : {1, 3}) {
      WithThreads with(threads);
      paged_attention(q, server.pages, at::cat(sequences), at::cat(positions), server.block_table, 0.2, out);
      EXPECT_TRUE(same_bits(out, at::cat(alone))) << to_string(type);
    }
  }
}

// Attention in doubles over a whole sequence: what a window hides and a sink takes, said plainly.
Tensor plain_attention(const Inputs& in, const Tensor& values, double scale, int64_t window,
                       const Tensor& sinks) {
  const int64_t tokens = in.q.size(0), heads = in.q.size(1), group = heads / in.k.size(1);
  std::vector<Tensor> out;
  for (int64_t h = 0; h < heads; ++h) {
    const Tensor q = in.q.select(1, h).to(at::kDouble), k = in.k.select(1, h / group).to(at::kDouble);
    Tensor scores = q.matmul(k.t()).mul(scale);
    const Tensor all = at::zeros({tokens, tokens}, at::kBool).fill_(true);
    Tensor seen = all.tril();
    if (window > 0) seen = seen.logical_and(all.triu(1 - window));
    scores = scores.masked_fill(seen.logical_not(), -INFINITY);
    if (sinks.defined()) scores = at::cat({scores, sinks[h].to(at::kDouble).expand({tokens, 1})}, 1);
    const Tensor weights = scores.softmax(-1).narrow(1, 0, tokens);
    out.push_back(weights.matmul(values.select(1, h / group).to(at::kDouble)));
  }
  return at::stack(out, 1);
}

TEST(PagedAttention, SeesAWindowAndGivesSinksTheirWeight) {
  for (KvType type : {KvType::f32, KvType::bf16})
    for (int64_t window : {0, 1, 17, 130}) {
      const Shape shape{300, 4, 2, 24};
      const Inputs in = inputs_of(shape, type);
      const Tensor sinks = random({4}, 9, at::kFloat, 2);
      const PagedOptions options{.window = window, .sinks = sinks};
      const Tensor whole = Server(type, shape).run(in, 300, scale_of(shape), options);
      const double rounding = type == KvType::f32 ? 1e-5 : 4 * kBf16Unit;
      const Tensor expected = plain_attention(in, in.v, scale_of(shape), window, sinks);
      EXPECT_LE(excess(whole, expected, rounding, rounding), 1) << to_string(type) << ' ' << window;
      EXPECT_TRUE(same_bits(Server(type, shape, 48).run(in, 13, scale_of(shape), options), whole));
      WithThreads with(3);
      EXPECT_TRUE(same_bits(Server(type, shape).run(in, 64, scale_of(shape), options), whole));
    }
}

TEST(PagedAttention, OfLatentPagesTakesValuesFromKeys) {
  constexpr int64_t kLatent = 20;
  for (KvType type : kTypes) {
    const Shape shape{150, 6, 1, 28};
    const Inputs in = inputs_of(shape, type);
    auto run = [&](int64_t chunk, int64_t block_tokens) {
      Server server(type, shape, block_tokens, kLatent);
      return server.run({in.q, in.k, {}}, chunk, scale_of(shape));
    };
    const Tensor whole = run(150, 16), values = in.k.narrow(2, 0, kLatent);
    const double rounding = type == KvType::f32 ? 1e-5 : 4 * kBf16Unit;
    const Tensor expected = plain_attention(in, values, scale_of(shape), 0, {});
    EXPECT_LE(excess(whole, expected, rounding + 8 * stored_error(type), rounding), 1) << to_string(type);
    EXPECT_TRUE(same_bits(run(7, 48), whole)) << to_string(type);
    // The same numbers with their values stored beside the keys.
    Inputs apart = in;
    apart.v = at::cat({values, at::zeros({150, 1, 8}, values.options())}, 2);
    const Tensor stored = Server(type, shape).run(apart, 150, scale_of(shape)).narrow(2, 0, kLatent);
    if (type == KvType::f32 || type == KvType::bf16) {
      EXPECT_TRUE(same_bits(whole, stored.contiguous()));
    }
  }
}

TEST(KvShape, OfALatentHoldsNoValues) {
  const KvShape shape{.type = KvType::bf16, .block_tokens = 16, .heads = 1, .head_dim = 576, .latent = 512};
  EXPECT_EQ(shape.block_bytes(), 16 * 576 * 2);
}

// The best of all 256 bytes, by trying each.
float nearest_byte(KvType type, float x) {
  float best = NAN;
  for (int i = 0; i < 256; ++i) {
    const auto byte = static_cast<uint8_t>(i);
    float value = static_cast<float>(static_cast<int8_t>(byte));
    if (type == KvType::fp8) {
      if ((byte & 0x7f) == 0x7f) continue;
      const int exponent = byte >> 3 & 15, mantissa = byte & 7;
      const float size = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                       : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
      value = byte & 0x80 ? -size : size;
    }
    if (!(std::abs(value - x) >= std::abs(best - x))) best = value;
  }
  return best;
}

TEST(KvBytes, HoldTheNearestNumberForEveryTokenAndHead) {
  for (KvType type : {KvType::int8, KvType::fp8}) {
    const Shape shape{1, 1, 1, 64};
    const float top = type == KvType::int8 ? 127.0f : 448.0f;
    for (uint64_t seed = 0; seed < 20; ++seed) {
      Inputs in = inputs_of(shape, type, seed);
      in.v.mul_(in.v.pow(4));  // many sizes
      const Tensor out = Server(type, shape).run(in, 1, 1.0).to(at::kFloat).flatten();
      const Tensor value = in.v.to(at::kFloat).flatten();
      const float scale = value.abs().max().item<float>() / top;
      for (int64_t e = 0; e < 64; ++e) {
        // One key: its weight is 1, and its scale is rounded to bf16 where it meets the value.
        const float rounded_scale = at::full({}, scale).to(at::kBFloat16).item<float>();
        auto stored = [&](float tilt) {  // halves may go either way
          const float x = value[e].item<float>() / scale * (1 + tilt);
          return at::full({}, nearest_byte(type, x) * rounded_scale).to(at::kBFloat16).item<float>();
        };
        const float got = out[e].item<float>();
        ASSERT_TRUE(got == stored(1e-6f) || got == stored(-1e-6f))
            << to_string(type) << ' ' << seed << ' ' << e;
      }
    }
  }
}

TEST(KvShape, TakesHalfOfTheMemoryInBytes) {
  for (int64_t head_dim : {64, 128}) {
    KvShape shape{.type = KvType::bf16, .block_tokens = 16, .heads = 8, .head_dim = head_dim};
    EXPECT_EQ(shape.block_bytes(), 2 * 16 * 8 * head_dim * 2);
    shape.type = KvType::f32;
    EXPECT_EQ(shape.block_bytes(), 2 * 16 * 8 * head_dim * 4);
    for (KvType type : {KvType::int8, KvType::fp8}) {
      shape.type = type;
      EXPECT_EQ(shape.block_bytes(), 2 * 16 * 8 * (head_dim + 4));  // and a scale for each head of a token
    }
  }
}

TEST(KvPages, AreIndependentRunsOfBytes) {
  const Shape shape{16, 2, 2, 16};
  const Inputs in = inputs_of(shape, KvType::bf16);
  Server from(KvType::bf16, shape), to(KvType::bf16, shape);
  from.write(1, in.k, in.v);
  const int32_t block = from.block_table.data_ptr<int32_t>()[from.block_table.size(1)];
  std::ranges::copy(from.pages.block(block), to.pages.block(block).begin());
  EXPECT_TRUE(same_bits(to.attend(1, in.q, 0, 0.3), from.attend(1, in.q, 0, 0.3)));
}

TEST(KvType, IsNamedAsItIsPrinted) {
  for (KvType type : kTypes) EXPECT_EQ(kv_type_named(to_string(type)), type);
  EXPECT_FALSE(kv_type_named("int4").has_value());
}

}  // namespace
}  // namespace tessera::kernels
