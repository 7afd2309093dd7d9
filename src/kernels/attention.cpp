// Attention by tiles: the loops over heads, query tiles and key blocks around the steps of body/attention.h.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/attention_tile.h"
#include "kernels/kernels.h"
#include "kernels/scratch.h"
#include "kernels/threads.h"
#include "kernels/views.h"

namespace tessera::kernels {

double natural_log(double x) {
  int exponent = 0;
  double mantissa = std::frexp(x, &exponent);  // [0.5, 1)
  if (mantissa < 0.70710678118654752) {
    mantissa *= 2;
    --exponent;
  }
  const double f = (mantissa - 1) / (mantissa + 1), square = f * f;
  double series = 0;
  for (int odd = 23; odd >= 1; odd -= 2) series = series * square + 1.0 / odd;
  return exponent * 0.69314718055994530942 + 2 * f * series;
}

QueryTile::QueryTile(int64_t rows, int64_t head_dim)
    : rows_(rows),
      head_dim_(head_dim),
      width_(padded(head_dim)),
      q_(rows * width_),
      scores_(rows * kKeyBlock),
      out_(rows * width_),
      max_(rows),
      sum_(rows * kLanes),
      begin_(static_cast<size_t>(rows)),
      end_(static_cast<size_t>(rows)) {
  std::fill_n(out_.data(), rows * width_, 0.0f);
  std::fill_n(max_.data(), rows, -std::numeric_limits<float>::infinity());
  std::fill_n(sum_.data(), rows * kLanes, 0.0f);
}

void QueryTile::set_row(int64_t r, const Source& q, int64_t begin, int64_t end) {
  widen_row(q, head_dim_, q_.data() + r * width_);
  begin_[static_cast<size_t>(r)] = static_cast<int32_t>(begin);
  end_[static_cast<size_t>(r)] = static_cast<int32_t>(end);
  first_ = std::min(first_, begin);
  last_ = std::max(last_, end);
}

void QueryTile::attend(int64_t first_key, int64_t keys, const float* keys_transposed, const float* values,
                       float scale) {
  table().attention({.q = q_.data(),
                     .keys_transposed = keys_transposed,
                     .values = values,
                     .rows = rows_,
                     .head_dim = head_dim_,
                     .width = width_,
                     .first_key = first_key,
                     .keys = std::min(keys, last_ - first_key),
                     .begin = begin_.data(),
                     .end = end_.data(),
                     .scale = scale,
                     .scores = scores_.data(),
                     .out = out_.data(),
                     .max = max_.data(),
                     .sum = sum_.data()});
}

float QueryTile::finish_row(int64_t r, const Target& out) const {
  const float total = table().lane_sum(sum_.data() + r * kLanes);
  table().divide({out_.data() + r * width_, Type::f32, width_}, total, out, head_dim_);
  return static_cast<float>(static_cast<double>(max_.data()[r]) + natural_log(static_cast<double>(total)));
}

void widen_row(const Source& from, int64_t width, float* to) {
  table().convert(from, {to, Type::f32, width}, 1, width);
  std::fill(to + width, to + padded(width), 0.0f);
}

namespace {

struct Heads {
  Rows rows;
  int64_t heads, head_dim;
  Source source(int64_t t, int64_t h) const {
    Source result = rows.source(t);
    result.data = static_cast<const char*>(result.data) + h * head_dim * (rows.type == Type::f32 ? 4 : 2);
    return result;
  }
  Target target(int64_t t, int64_t h) const {
    const Source s = source(t, h);
    return {const_cast<void*>(s.data), s.type, s.stride};
  }
};

Heads heads_of(const Tensor& tensor, const char* name) {
  TESSERA_REQUIRE(tensor.dim() == 3, "{}: expected [T, heads, head_dim], got {} dimensions", name,
                  tensor.dim());
  return {rows_of(tensor, name), tensor.size(1), tensor.size(2)};
}

// One head as the steps read it, in float32: rows of `width` floats, and optionally panels of 16 tokens, each
// [head_dim][16].
class HeadCopy {
 public:
  HeadCopy(const Heads& from, int64_t head, bool transposed)
      : width_(padded(from.head_dim)),
        panel_(from.head_dim * kLanes),
        rows_(from.rows.count * width_),
        panels_(transposed ? (from.rows.count + kLanes - 1) / kLanes * panel_ : 0) {
    const int64_t tokens = from.rows.count;
    for (int64_t t = 0; t < tokens; ++t)
      widen_row(from.source(t, head), from.head_dim, rows_.data() + t * width_);
    if (transposed)
      table().pack_transposed({rows_.data(), Type::f32, width_}, tokens, from.head_dim, panels_.data());
  }
  float* row(int64_t t) const { return rows_.data() + t * width_; }
  const float* panel(int64_t t) const { return panels_.data() + t / kLanes * panel_; }

 private:
  int64_t width_, panel_;
  Scratch rows_, panels_;
};

struct Problem {
  Heads q, k, v;
  const int32_t* start;
  float scale;
  int64_t tokens() const { return q.rows.count; }
  int64_t group() const { return q.heads / k.heads; }
};

Problem problem_of(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& start, double scale) {
  Problem p{heads_of(q, "attention q"), heads_of(k, "attention k"), heads_of(v, "attention v"),
            ints(start, "attention start"), static_cast<float>(scale)};
  TESSERA_REQUIRE(k.sizes() == v.sizes() && p.k.head_dim == p.q.head_dim && p.k.rows.count == p.tokens(),
                  "attention: q, k and v do not fit together");
  TESSERA_REQUIRE(p.k.heads > 0 && p.q.heads % p.k.heads == 0, "attention: {} heads over {} kv heads",
                  p.q.heads, p.k.heads);
  check_shape(start, {p.tokens()}, "attention start");
  for (int64_t t = 0; t < p.tokens(); ++t)
    TESSERA_REQUIRE(p.start[t] >= 0 && p.start[t] <= t, "attention: token {} starts at {}", t, p.start[t]);
  return p;
}

int64_t block_of(int64_t key) {
  return key / kKeyBlock * kKeyBlock;
}

// Query tokens [first, first + rows) of one head.
void forward_tile(const Problem& p, int64_t head, int64_t first, int64_t rows, const HeadCopy& keys,
                  const HeadCopy& values, const Heads& out, float* lse) {
  QueryTile tile(rows, p.q.head_dim);
  for (int64_t r = 0; r < rows; ++r)
    tile.set_row(r, p.q.source(first + r, head), p.start[first + r], first + r + 1);
  for (int64_t key = block_of(tile.first()); key < tile.last(); key += kKeyBlock)
    tile.attend(key, kKeyBlock, keys.panel(key), values.row(key), p.scale);
  for (int64_t r = 0; r < rows; ++r)
    lse[(first + r) * p.q.heads + head] = tile.finish_row(r, out.target(first + r, head));
}

}  // namespace

void attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& start, double scale,
               Tensor& out, Tensor& lse) {
  const Problem p = problem_of(q, k, v, start, scale);
  const Heads to = heads_of(out, "attention out");
  TESSERA_REQUIRE(out.sizes() == q.sizes(), "attention out: expected the shape of q");
  check_shape(lse, {p.tokens(), p.q.heads}, "attention lse");
  float* sums = floats(lse, "attention lse");
  if (p.tokens() == 0) return;
  const int64_t tiles = (p.tokens() + kQueryTile - 1) / kQueryTile;
  for (int64_t kv = 0; kv < p.k.heads; ++kv) {
    const HeadCopy keys(p.k, kv, true), values(p.v, kv, false);
    parallel(tiles * p.group(), [&](int64_t i) {
      const int64_t first = (tiles - 1 - i % tiles) * kQueryTile;  // the longest first
      forward_tile(p, kv * p.group() + i / tiles, first, std::min(kQueryTile, p.tokens() - first), keys, values,
                   to, sums);
    });
  }
}

namespace {

// What one query head needs in the backward pass.
struct QueryHead {
  QueryHead(const Problem& p, const Heads& gradient, const Heads& out, const float* all_lse, int64_t head)
      : q(p.q, head, false),
        dout(gradient, head, false),
        dq(p.tokens() * padded(p.q.head_dim)),
        lse(p.tokens()),
        delta(p.tokens()) {
    std::fill_n(dq.data(), p.tokens() * padded(p.q.head_dim), 0.0f);
    for (int64_t t = 0; t < p.tokens(); ++t) {
      lse.data()[t] = all_lse[t * p.q.heads + head];
      delta.data()[t] = table().dot(gradient.source(t, head), out.source(t, head), p.q.head_dim);
    }
  }
  HeadCopy q, dout;
  Scratch dq, lse, delta;
};

struct BackwardArguments {
  const Problem& p;
  const Heads &dout, &out, &dq, &dk, &dv;
  const float* lse;
};

// One kv head with the query heads of its group. Keys ascend outside, heads and queries inside: dk and dv are
// chains over (head, query), dq a chain over keys.
class BackwardGroup {
 public:
  BackwardGroup(const BackwardArguments& a, int64_t kv)
      : p_(a.p),
        width_(padded(a.p.q.head_dim)),
        keys_(p_.k, kv, true),
        values_(p_.v, kv, true),
        scores_(2 * kQueryTile * kKeyBlock),
        sums_(2 * kKeyBlock * width_) {
    for (int64_t h = 0; h < p_.group(); ++h) heads_.emplace_back(p_, a.dout, a.out, a.lse, kv * p_.group() + h);
    for (int64_t t = 0; t < p_.tokens(); ++t) end_.push_back(static_cast<int32_t>(t + 1));
  }

  void run(const BackwardArguments& a, int64_t kv) {
    for (int64_t key = 0; key < p_.tokens(); key += kKeyBlock) {
      const int64_t keys = std::min(kKeyBlock, p_.tokens() - key);
      std::fill_n(sums_.data(), 2 * kKeyBlock * width_, 0.0f);
      for (QueryHead& head : heads_)
        for (int64_t first = key / kQueryTile * kQueryTile; first < p_.tokens(); first += kQueryTile)
          step(head, key, keys, first);
      for (int64_t j = 0; j < keys; ++j) {
        give(sums_.data() + j * width_, a.dk.target(key + j, kv));
        give(sums_.data() + (kKeyBlock + j) * width_, a.dv.target(key + j, kv));
      }
    }
    for (int64_t h = 0; h < p_.group(); ++h)
      for (int64_t t = 0; t < p_.tokens(); ++t)
        give(heads_[static_cast<size_t>(h)].dq.data() + t * width_, a.dq.target(t, kv * p_.group() + h));
  }

 private:
  void give(const float* from, const Target& to) {
    table().convert({from, Type::f32, width_}, to, 1, p_.q.head_dim);
  }

  void step(QueryHead& head, int64_t key, int64_t keys, int64_t first) {
    const int64_t rows = std::min(kQueryTile, p_.tokens() - first);
    const int64_t seen = std::min(keys, first + rows - key);
    if (seen <= 0 || *std::min_element(p_.start + first, p_.start + first + rows) >= key + keys) return;
    table().attention_backward({.forward = {.q = head.q.row(first),
                                            .keys_transposed = keys_.panel(key),
                                            .values = nullptr,
                                            .rows = rows,
                                            .head_dim = p_.q.head_dim,
                                            .width = width_,
                                            .first_key = key,
                                            .keys = seen,
                                            .begin = p_.start + first,
                                            .end = end_.data() + first,
                                            .scale = p_.scale,
                                            .scores = scores_.data(),
                                            .out = nullptr,
                                            .max = nullptr,
                                            .sum = nullptr},
                                .dout = head.dout.row(first),
                                .values_transposed = values_.panel(key),
                                .keys = keys_.row(key),
                                .lse = head.lse.data() + first,
                                .delta = head.delta.data() + first,
                                .dscores = scores_.data() + kQueryTile * kKeyBlock,
                                .dq = head.dq.data() + first * width_,
                                .dk = sums_.data(),
                                .dv = sums_.data() + kKeyBlock * width_});
  }

  const Problem& p_;
  int64_t width_;
  HeadCopy keys_, values_;
  Scratch scores_, sums_;
  std::vector<QueryHead> heads_;
  std::vector<int32_t> end_;
};

}  // namespace

void attention_backward(const Tensor& dout, const Tensor& q, const Tensor& k, const Tensor& v,
                        const Tensor& out, const Tensor& lse, const Tensor& start, double scale, Tensor& dq,
                        Tensor& dk, Tensor& dv) {
  const Problem p = problem_of(q, k, v, start, scale);
  TESSERA_REQUIRE(dout.sizes() == q.sizes() && out.sizes() == q.sizes() && dq.sizes() == q.sizes() &&
                      dk.sizes() == k.sizes() && dv.sizes() == v.sizes(),
                  "attention_backward: dout, out and dq need the shape of q, dk and dv those of k and v");
  check_shape(lse, {p.tokens(), p.q.heads}, "attention lse");
  const Heads d = heads_of(dout, "attention dout"), o = heads_of(out, "attention out");
  const Heads to_q = heads_of(dq, "attention dq"), to_k = heads_of(dk, "attention dk");
  const Heads to_v = heads_of(dv, "attention dv");
  const BackwardArguments arguments{p, d, o, to_q, to_k, to_v, floats(lse, "attention lse")};
  if (p.tokens() == 0) return;
  parallel(p.k.heads, [&](int64_t kv) { BackwardGroup(arguments, kv).run(arguments, kv); });
}

}  // namespace tessera::kernels
