// Attention of a tile of query rows against one block of keys: compiled once per ISA, included inside its
// namespace after rows.h.
//
// Blocks are aligned to absolute key positions and visited in ascending order, scores are chains over the head
// dimension, the sum of exponentials has one accumulator per position mod 16, the values one chain over the
// keys. A key that a row does not see gives it +0; a block without visible keys leaves the row as it was. So a
// row's bits depend only on its own keys and their positions.

inline int64_t clamp_to(int64_t x, int64_t low, int64_t high) {
  return x < low ? low : x > high ? high : x;
}

// out[rows, columns] (+)= left * right; right is [k][16] panels, or rows of `width` when right_stride says so.
inline void small_product(const float* left, int64_t row_stride, int64_t k_stride, const float* right,
                          int64_t right_stride, int64_t panel, int64_t rows, int64_t columns, int64_t k,
                          float* out, int64_t out_stride, bool accumulate) {
  product_by<Floats>({.a = left,
                      .a_tile = row_stride * kRowTile,
                      .a_row = row_stride,
                      .a_k = k_stride,
                      .b = right,
                      .b_panel = panel,
                      .b_k = right_stride,
                      .rows = rows,
                      .columns = columns,
                      .k = k,
                      .start = accumulate ? out : nullptr,
                      .start_row = out_stride,
                      .c = {out, Type::f32, out_stride}});
}

// What row `r` sees of the block: keys [begin, end) counted from its first key.
struct Visible {
  int64_t begin, end;
  bool none() const { return begin >= end; }
  M16 mask(int64_t i) const { return lanes(begin - i, end - i); }
};
inline Visible visible(const AttentionStep& s, int64_t r) {
  return {clamp_to(s.begin[r] - s.first_key, 0, s.keys), clamp_to(s.end[r] - s.first_key, 0, s.keys)};
}

inline int64_t whole_panels(int64_t keys) {
  return (keys + 15) / 16 * 16;
}

// scores[rows, keys] = left * keys^T, keys in panels of 16.
inline void score(const AttentionStep& s, const float* left, const float* panels, float* scores) {
  small_product(left, s.width, 1, panels, 16, 16 * s.head_dim, s.rows, whole_panels(s.keys), s.head_dim, scores,
                kKeyBlock, false);
}

// Raises the maximum of a row to `now` and brings what the row gathered under the old one to the new; its sum.
template <class Step>
inline F16 raise_maximum(const Step& s, int64_t r, float now) {
  const F16 total = load(s.sum + r * 16);
  if (now == s.max[r]) return total;
  const F16 factor = exp(splat(s.max[r]) - splat(now));
  float* out = s.out + r * s.width;
  for (int64_t i = 0; i < s.width; i += 16) store(out + i, load(out + i) * factor);
  s.max[r] = now;
  return total * factor;
}

// Turns a row of scores into weights exp(score * scale - max), updates max and sum, and rescales what the row
// has gathered before.
inline void weigh_row(const AttentionStep& s, int64_t r) {
  float* scores = s.scores + r * kKeyBlock;
  const int64_t width = whole_panels(s.keys);
  const Visible seen = visible(s, r);
  if (seen.none()) {
    for (int64_t i = 0; i < width; i += 16) store(scores + i, zero());
    return;
  }
  const F16 lowest = splat(-__builtin_inff());
  F16 largest = splat(s.max[r]);
  for (int64_t i = 0; i < width; i += 16) {
    const F16 x = select(seen.mask(i), load(scores + i) * splat(s.scale), lowest);
    largest = max(largest, x);
    store(scores + i, x);
  }
  const float now = maximum(largest);
  F16 total = raise_maximum(s, r, now);
  for (int64_t i = 0; i < width; i += 16) {
    const F16 p = exp(load(scores + i) - splat(now));
    total = total + p;
    store(scores + i, p);
  }
  store(s.sum + r * 16, total);
}

void attention(const AttentionStep& s) {
  score(s, s.q, s.keys_transposed, s.scores);
  for (int64_t r = 0; r < s.rows; ++r) weigh_row(s, r);
  small_product(s.scores, kKeyBlock, 1, s.values, s.width, 16, s.rows, s.width, s.keys, s.out, s.width, true);
}

// scores become the weights p = exp(score * scale - lse), dscores the gradients p * (dp - delta) * scale.
inline void gradient_row(const AttentionBackwardStep& b, int64_t r) {
  const AttentionStep& s = b.forward;
  float* scores = s.scores + r * kKeyBlock;
  float* dscores = b.dscores + r * kKeyBlock;
  const Visible seen = visible(s, r);
  const F16 lse = splat(b.lse[r]), delta = splat(b.delta[r]), scale = splat(s.scale);
  for (int64_t i = 0; i < whole_panels(s.keys); i += 16) {
    const M16 mask = seen.mask(i);
    const F16 p = select(mask, exp(load(scores + i) * scale - lse), zero());
    store(scores + i, p);
    store(dscores + i, select(mask, p * (load(dscores + i) - delta) * scale, zero()));
  }
}

void attention_backward(const AttentionBackwardStep& b) {
  const AttentionStep& s = b.forward;
  score(s, s.q, s.keys_transposed, s.scores);
  score(s, b.dout, b.values_transposed, b.dscores);
  for (int64_t r = 0; r < s.rows; ++r) gradient_row(b, r);
  small_product(b.dscores, kKeyBlock, 1, b.keys, s.width, 16, s.rows, s.width, s.keys, b.dq, s.width, true);
  small_product(b.dscores, 1, kKeyBlock, s.q, s.width, 16, s.keys, s.width, s.rows, b.dk, s.width, true);
  small_product(s.scores, 1, kKeyBlock, b.dout, s.width, 16, s.keys, s.width, s.rows, b.dv, s.width, true);
}
