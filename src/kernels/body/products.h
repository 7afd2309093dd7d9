// Products: compiled once per ISA, included inside its namespace after simd.h.
//
// A tile of R rows and P panels of 16 columns stays in registers while k ascends, so each element is one chain
// of fma whatever the tile's size: rows, columns and ISA change only what runs side by side.

template <class T>
const T* typed(const void* data) {
  return static_cast<const T*>(data);
}

// Calls f with a null pointer of the element type.
template <class F>
void with_type(Type type, F f) {
  if (type == Type::f32)
    f(static_cast<float*>(nullptr));
  else
    f(static_cast<Bf16*>(nullptr));
}

inline void store_tile(const Target& t, int64_t row, int64_t column, F16 x, int64_t width) {
  with_type(t.type, [&](auto* type) {
    using To = std::remove_pointer_t<decltype(type)>;
    To* to = static_cast<To*>(t.data) + row * t.stride + column;
    if (width == 16)
      store(to, x);
    else
      store_part(to, x, width);
  });
}

// One step of the chain: a float, or a word of two bf16.
struct Floats {
  static F16 step(F16 a, F16 b, F16 c) { return fma(a, b, c); }
};
struct Pairs {
  static F16 step(F16 a, F16 b, F16 c) { return fma_pairs(a, b, c); }
};

template <class Step, int R, int P>
void product_tile(const Product& p, int64_t row, int64_t first, int64_t columns) {
  F16 acc[R][P];
  const int64_t last = columns - (P - 1) * 16;  // columns of the last panel, 1 to 16
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < P; ++j) {
      if (p.start == nullptr) {
        acc[r][j] = zero();
        continue;
      }
      const float* from = p.start + (row + r) * p.start_row + first + j * 16;
      acc[r][j] = j < P - 1 || last == 16 ? load(from) : load_part(from, last);
    }
  const float* a = p.a + row / kRowTile * p.a_tile;
  const float* b = p.b + first / 16 * p.b_panel;
  for (int64_t k = 0; k < p.k; ++k, a += p.a_k, b += p.b_k) {
    F16 right[P];
    for (int j = 0; j < P; ++j) right[j] = load(b + j * p.b_panel);
    for (int r = 0; r < R; ++r) {
      const F16 left = splat(a[r * p.a_row]);
      for (int j = 0; j < P; ++j) acc[r][j] = Step::step(left, right[j], acc[r][j]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < P; ++j) store_tile(p.c, row + r, first + j * 16, acc[r][j], j < P - 1 ? 16 : last);
}

// R rows from `row` on against columns [first, end), the widest register tile first.
template <class Step, int R, int P>
void product_row_tile(const Product& p, int64_t row, int64_t first, int64_t end) {
  for (; first < end; first += P * 16) {
    if constexpr (P > 1)
      if (end - first <= (P - 1) * 16) return product_row_tile<Step, R, P - 1>(p, row, first, end);
    product_tile<Step, R, P>(p, row, first, end - first < P * 16 ? end - first : P * 16);
  }
}

// All rows: whole tiles panel by panel, so that the panel stays in the first cache; then the rest of the rows.
template <class Step, int R>
void product_rest(const Product& p, int64_t row) {
  if constexpr (R > 0) {
    if (p.rows - row == R)
      product_row_tile<Step, R, panels_for(R)>(p, row, 0, p.columns);
    else
      product_rest<Step, R - 1>(p, row);
  }
}

// Written out: GCC 12 drops calls of a function that only prefetches.
template <bool kToWrite>
void fetch(const void* line) {
#ifdef __x86_64__
  if constexpr (kToWrite)
    asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(line)));
  else
    asm volatile("prefetcht0 %0" : : "m"(*static_cast<const char*>(line)));
#else
  __builtin_prefetch(line, kToWrite);
#endif
}

template <bool kToWrite>
void fetch_rows(const void* data, int64_t rows, int64_t stride_bytes, int64_t bytes) {
  const char* row = static_cast<const char*>(data);
  for (; rows > 0; --rows, row += stride_bytes)
    for (int64_t byte = 0; byte < bytes; byte += 64) fetch<kToWrite>(row + byte);
}

// Results are seldom in the first cache, and a tile of few steps would wait for its lines: those of the tile at
// `row` are asked for while another one is computed.
inline void fetch_tile(const Product& p, int64_t row, int64_t first, int64_t end) {
  const int64_t rows = kRowTile < p.rows - row ? kRowTile : p.rows - row, columns = end - first;
  if (p.start != nullptr)
    return fetch_rows<false>(p.start + row * p.start_row + first, rows, p.start_row * 4, columns * 4);
  const int64_t size = p.c.type == Type::f32 ? 4 : 2;
  const char* c = static_cast<const char*>(p.c.data) + (row * p.c.stride + first) * size;
  fetch_rows<true>(c, rows, p.c.stride * size, columns * size);
}

template <class Step>
void product_by(const Product& p) {
  constexpr int kPanels = panels_for(kRowTile);
  const int64_t whole = p.rows / kRowTile * kRowTile;
  for (int64_t first = 0; first < p.columns && whole > 0; first += kPanels * 16) {
    const int64_t end = first + kPanels * 16 < p.columns ? first + kPanels * 16 : p.columns;
    for (int64_t row = 0; row < whole; row += kRowTile) {
      fetch_tile(p, row + kRowTile, first, end);
      product_row_tile<Step, kRowTile, kPanels>(p, row, first, end);
    }
  }
  product_rest<Step, kRowTile - 1>(p, whole);
}

void product(const Product& p) {
  product_by<Floats>(p);
}
void product_pairs(const Product& p) {
  [[maybe_unused]] const SubnormalsAreZero mode;
  product_by<Pairs>(p);
}

// Steps of a chain over k values of this type.
template <class From>
constexpr int64_t steps_of(int64_t k) {
  return std::is_same_v<From, float> ? k : (k + 1) / 2;
}

// Steps from `i` on of one row: 16 floats or words, absent ones +0.
inline F16 load_depth(const float* row, int64_t i, int64_t k) {
  return k - i >= 16 ? load(row + i) : load_part(row + i, k - i);
}
inline F16 load_depth(const Bf16* row, int64_t i, int64_t k) {
  return load_words(row + 2 * i, k - 2 * i);
}

// b[n,k] -> panels [n / 16][k][16]; columns past n are zero.
template <class From>
void pack_transposed_typed(const From* b, int64_t stride, int64_t n, int64_t k, float* panels) {
  const int64_t depth = steps_of<From>(k);
  for (int64_t first = 0; first < n; first += 16, b += 16 * stride)
    for (int64_t i = 0; i < depth; i += 16) {
      F16 rows[16];
      for (int64_t r = 0; r < 16; ++r) rows[r] = first + r < n ? load_depth(b + r * stride, i, k) : zero();
      if (depth - i >= 16) {
        transpose(rows, panels);
        panels += 256;
        continue;
      }
      float square[256];
      transpose(rows, square);
      for (int64_t r = 0; r < depth - i; ++r, panels += 16) store(panels, load(square + r * 16));
    }
}

// Sixteen columns of step i of b[k,n]: floats of one row, or words of two; `width` of them are there.
template <class From>
F16 load_step(const From* b, int64_t stride, int64_t i, int64_t k, int64_t width) {
  auto row = [&](int64_t r) { return width >= 16 ? load(b + r * stride) : load_part(b + r * stride, width); };
  if constexpr (std::is_same_v<From, float>)
    return row(i);
  else
    return join(row(2 * i), 2 * i + 1 < k ? row(2 * i + 1) : zero());
}

// b[k,n] -> panels [n / kWidth][k][kWidth]. Whole registers are stored, the surplus is overwritten by the next
// step.
template <int kWidth, class From>
void pack_rows_typed(const From* b, int64_t stride, int64_t k, int64_t n, float* panels) {
  const int64_t depth = steps_of<From>(k);
  for (int64_t first = 0; first < n; first += kWidth)
    for (int64_t i = 0; i < depth; ++i, panels += kWidth) {
      const F16 step = load_step(b + first, stride, i, k, n - first);
      if (i + 1 < depth)
        store(panels, step);
      else
        store_part(panels, step, kWidth);
    }
}

void pack_transposed(const Source& b, int64_t n, int64_t k, float* panels) {
  with_type(b.type, [&](auto* type) {
    using From = std::remove_pointer_t<decltype(type)>;
    pack_transposed_typed(typed<From>(b.data), b.stride, n, k, panels);
  });
}

void pack_rows(const Source& b, int64_t k, int64_t n, float* panels) {
  with_type(b.type, [&](auto* type) {
    using From = std::remove_pointer_t<decltype(type)>;
    pack_rows_typed<16>(typed<From>(b.data), b.stride, k, n, panels);
  });
}

void pack_columns(const Source& a, int64_t k, int64_t m, float* tiles) {
  with_type(a.type, [&](auto* type) {
    using From = std::remove_pointer_t<decltype(type)>;
    pack_rows_typed<kRowTile>(typed<From>(a.data), a.stride, k, m, tiles);
  });
}
