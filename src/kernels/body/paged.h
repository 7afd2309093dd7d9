// Attention of a tile of query rows against one block of paged keys: compiled once per ISA, included inside its
// namespace after attention.h, whose chains and masks it takes. Panels of 16 keys are read where they lie.
//
// On floats the bits are those of attention(). On pairs a step is that of a product of bf16, and a weight is
// rounded to bf16 before it meets its value; the sum of weights takes them as they were.

// Scores of R rows against P panels from `panel` on.
template <class Step, int R, int P>
inline void key_tile(const PagedStep& s, int64_t row, int64_t panel) {
  F16 acc[R][P];
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < P; ++j) acc[r][j] = zero();
  const float* q = s.q + row * s.key_steps;
  const float* const* keys = s.keys_of + panel;
  for (int64_t k = 0; k < s.key_steps; ++k) {
    F16 right[P];
    for (int j = 0; j < P; ++j) right[j] = load(keys[j] + k * 16);
    for (int r = 0; r < R; ++r) {
      const F16 left = splat(q[r * s.key_steps + k]);
      for (int j = 0; j < P; ++j) acc[r][j] = Step::step(left, right[j], acc[r][j]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < P; ++j) store(s.scores + (row + r) * kKeyBlock + (panel + j) * 16, acc[r][j]);
}

// The words that meet the values were stored as bf16 where they are not floats.
inline F16 splat_word(const float* word) {
  float value;
  __builtin_memcpy(&value, word, sizeof value);
  return splat(value);
}

// out of R rows in P panels of the head's width from `panel` on, continued over all keys of the block.
template <class Step, int R, int P>
inline void value_tile(const PagedStep& s, const float* weights, int64_t stride, int64_t row, int64_t panel) {
  constexpr int64_t kKeysOfStep = std::is_same_v<Step, Floats> ? 1 : 2, kSteps = 16 / kKeysOfStep;
  float* out = s.out + row * s.width + panel * 16;
  F16 acc[R][P];
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < P; ++j) acc[r][j] = load(out + r * s.width + j * 16);
  const float* left_of = weights + row * stride;
  for (int64_t step = 0, steps = (s.keys + kKeysOfStep - 1) / kKeysOfStep; step < steps; ++step) {
    const float* values = s.values_of[step / kSteps] + step % kSteps * s.width + panel * 16;
    F16 right[P];
    for (int j = 0; j < P; ++j) right[j] = load(values + j * 16);
    for (int r = 0; r < R; ++r) {
      const F16 left = splat_word(left_of + r * stride + step);
      for (int j = 0; j < P; ++j) acc[r][j] = Step::step(left, right[j], acc[r][j]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < P; ++j) store(out + r * s.width + j * 16, acc[r][j]);
}

template <class Step, int R, int P>
inline void key_panels(const PagedStep& s, int64_t row, int64_t panel, int64_t end) {
  for (; panel + P <= end; panel += P) key_tile<Step, R, P>(s, row, panel);
  if constexpr (P > 1)
    if (panel < end) key_panels<Step, R, P / 2>(s, row, panel, end);
}

template <class Step, int R, int P>
inline void value_panels(const PagedStep& s, const float* weights, int64_t stride, int64_t row, int64_t panel,
                         int64_t end) {
  for (; panel + P <= end; panel += P) value_tile<Step, R, P>(s, weights, stride, row, panel);
  if constexpr (P > 1)
    if (panel < end) value_panels<Step, R, P / 2>(s, weights, stride, row, panel, end);
}

// Calls f with the rows as whole tiles and a rest.
template <int R, class F>
inline void in_row_tiles(int64_t row, int64_t rows, const F& f) {
  for (; rows - row >= R; row += R) f(std::integral_constant<int, R>(), row);
  if constexpr (R > 1)
    if (row < rows) in_row_tiles<(R > 6 ? 6 : R > 4 ? 4 : R / 2), F>(row, rows, f);
}

// A power of two, so that halves fill up the rest.
constexpr int paged_panels(int rows) {
  return panels_for(rows) >= 6 ? 8 : panels_for(rows) >= 4 ? 4 : panels_for(rows) >= 2 ? 2 : 1;
}

// As weigh_row, with scales of keys and values; `weights` receives what meets the values.
template <class To>
inline void weigh_paged_row(const PagedStep& s, int64_t r, To* weights) {
  float* scores = s.scores + r * kKeyBlock;
  const int64_t width = whole_panels(s.keys);
  const Visible seen{clamp_to(s.begin[r] - s.first_key, 0, s.keys),
                     clamp_to(s.end[r] - s.first_key, 0, s.keys)};
  if (seen.none()) {
    for (int64_t i = 0; i < width; i += 16) store(weights + i, zero());
    return;
  }
  const F16 lowest = splat(-__builtin_inff());
  F16 largest = splat(s.max[r]);
  for (int64_t i = 0; i < width; i += 16) {
    F16 x = load(scores + i);
    if (s.key_scale != nullptr) x = x * load(s.key_scale + i);
    x = select(seen.mask(i), x * splat(s.scale), lowest);
    largest = max(largest, x);
    store(scores + i, x);
  }
  const float now = maximum(largest);
  F16 total = raise_maximum(s, r, now);
  for (int64_t i = 0; i < width; i += 16) {
    F16 p = exp(load(scores + i) - splat(now));
    total = total + p;
    if (s.value_scale != nullptr) p = select(seen.mask(i), p * load(s.value_scale + i), zero());
    store(weights + i, p);
  }
  store(s.sum + r * 16, total);
}

template <class Step, class To>
inline void paged(const PagedStep& s, To* weights, int64_t stride) {
  const int64_t key_end = whole_panels(s.keys) / 16, value_end = s.width / 16;
  in_row_tiles<kRowTile>(0, s.rows, [&](auto rows, int64_t row) {
    key_panels<Step, rows.value, paged_panels(rows.value)>(s, row, 0, key_end);
  });
  for (int64_t r = 0; r < s.rows; ++r) weigh_paged_row(s, r, weights + r * kKeyBlock);
  in_row_tiles<kRowTile>(0, s.rows, [&](auto rows, int64_t row) {
    value_panels<Step, rows.value, paged_panels(rows.value)>(s, reinterpret_cast<const float*>(weights), stride,
                                                             row, 0, value_end);
  });
}

void paged_floats(const PagedStep& s) {
  paged<Floats>(s, s.scores, kKeyBlock);
}
void paged_pairs(const PagedStep& s) {
  [[maybe_unused]] const SubnormalsAreZero mode;
  paged<Pairs>(s, reinterpret_cast<Bf16*>(s.weights), kKeyBlock / 2);
}

// Keys behind a row's last one may have made a zero of a subnormal number, or turned a zero's sign: both are
// +0.
void paged_finish(const float* out, const float* lanes16, const Target& to, int64_t width) {
  const F16 total = splat(sum(load(lanes16)));
  const F16 nothing = zero(), least = splat(0x1p-126f);
  for (int64_t i = 0; i < width; i += 16) {
    const F16 x = load(out + i) + nothing;
    const F16 tiny = select(less(x, least), select(less(zero() - least, x), nothing, x), x);
    store_at(to, tiny / total, i, width);
  }
}

template <class Load>
inline void words_of(const uint8_t* from, int64_t steps16, float* words, const Load& load_bytes) {
  for (; steps16 > 0; --steps16, from += 32, words += 16)
    store(words, join(load_bytes(from), load_bytes(from + 16)));
}
void words_of_int8(const uint8_t* from, int64_t steps16, float* words) {
  words_of(from, steps16, words, [](const uint8_t* p) { return load_int8(p); });
}
void words_of_fp8(const uint8_t* from, int64_t steps16, float* words) {
  words_of(from, steps16, words, [](const uint8_t* p) { return load_fp8(p); });
}
