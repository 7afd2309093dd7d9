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

template <int R, int P, class B>
void product_tile(const Product& p, const float* a, const B* b, float* c, int64_t columns) {
  F16 acc[R][P];
  const int64_t last = columns - (P - 1) * 16;  // columns of the last panel, 1 to 16
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < P; ++j) {
      const float* from = c + r * p.c_row + j * 16;
      acc[r][j] = !p.accumulate ? zero() : j < P - 1 || last == 16 ? load(from) : load_part(from, last);
    }
  for (int64_t k = 0; k < p.k; ++k, a += p.a_k, b += p.b.stride) {
    F16 row[P];
    for (int j = 0; j < P; ++j) row[j] = load(b + j * p.b_panel);
    for (int r = 0; r < R; ++r) {
      const F16 left = splat(a[r * p.a_row]);
      for (int j = 0; j < P; ++j) acc[r][j] = fma(left, row[j], acc[r][j]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < P; ++j) {
      float* to = c + r * p.c_row + j * 16;
      if (j < P - 1 || last == 16)
        store(to, acc[r][j]);
      else
        store_part(to, acc[r][j], last);
    }
}

// One tile of rows against all columns, the widest register tile first.
template <int R, int P, class B>
void product_row_tile(const Product& p, const float* a, float* c, int64_t first, int64_t columns) {
  const B* b = typed<B>(p.b.data);
  for (; first < columns; first += P * 16) {
    if constexpr (P > 1)
      if (columns - first <= (P - 1) * 16) return product_row_tile<R, P - 1, B>(p, a, c, first, columns);
    const int64_t width = columns - first < P * 16 ? columns - first : P * 16;
    product_tile<R, P, B>(p, a, b + first / 16 * p.b_panel, c + first, width);
  }
}

// All rows: whole tiles panel by panel, so that the panel stays in the first cache; then the rest of the rows.
template <int R, class B>
void product_rest(const Product& p, int64_t rows, const float* a, float* c) {
  if constexpr (R > 0) {
    if (rows == R)
      product_row_tile<R, panels_for(R), B>(p, a, c, 0, p.columns);
    else
      product_rest<R - 1, B>(p, rows, a, c);
  }
}

template <class B>
void product_typed(const Product& p) {
  constexpr int kPanels = panels_for(kRowTile);
  const int64_t tiles = p.rows / kRowTile;
  for (int64_t first = 0; first < p.columns && tiles > 0; first += kPanels * 16) {
    const int64_t end = first + kPanels * 16 < p.columns ? first + kPanels * 16 : p.columns;
    for (int64_t tile = 0; tile < tiles; ++tile)
      product_row_tile<kRowTile, kPanels, B>(p, p.a + tile * p.a_tile, p.c + tile * kRowTile * p.c_row, first,
                                             end);
  }
  product_rest<kRowTile - 1, B>(p, p.rows % kRowTile, p.a + tiles * p.a_tile, p.c + tiles * kRowTile * p.c_row);
}

void product(const Product& p) {
  with_type(p.b.type, [&](auto* type) { product_typed<std::remove_pointer_t<decltype(type)>>(p); });
}

// b[n,k] -> panels [n / 16][k][16]; columns past n are zero.
template <class From, class To>
void pack_transposed_typed(const From* b, int64_t stride, int64_t n, int64_t k, To* panels) {
  for (int64_t first = 0; first < n; first += 16, b += 16 * stride, panels += 16 * k)
    for (int64_t k0 = 0; k0 < k; k0 += 16) {
      const int64_t width = k - k0 < 16 ? k - k0 : 16;
      F16 rows[16];
      for (int64_t i = 0; i < 16; ++i)
        rows[i] = first + i >= n ? zero()
                  : width == 16  ? load(b + i * stride + k0)
                                 : load_part(b + i * stride + k0, width);
      float square[256];
      transpose(rows, square);
      for (int64_t i = 0; i < width; ++i) store(panels + (k0 + i) * 16, load(square + i * 16));
    }
}

// b[k,n] -> panels [n / 16][k][16]; columns past n are zero.
template <class From, class To>
void pack_rows_typed(const From* b, int64_t stride, int64_t k, int64_t n, To* panels) {
  for (int64_t first = 0; first < n; first += 16, panels += 16 * k) {
    const int64_t width = n - first;
    for (int64_t i = 0; i < k; ++i) {
      const From* from = b + i * stride + first;
      store(panels + i * 16, width >= 16 ? load(from) : load_part(from, width));
    }
  }
}

template <class F>
void with_types(Type from, Type to, F f) {
  with_type(from, [&](auto* a) { with_type(to, [&](auto* b) { f(a, b); }); });
}

void pack_transposed(const Source& b, int64_t n, int64_t k, void* panels, Type type) {
  with_types(b.type, type, [&](auto* from, auto* to) {
    using From = std::remove_pointer_t<decltype(from)>;
    using To = std::remove_pointer_t<decltype(to)>;
    pack_transposed_typed(typed<From>(b.data), b.stride, n, k, static_cast<To*>(panels));
  });
}

void pack_rows(const Source& b, int64_t k, int64_t n, void* panels, Type type) {
  with_types(b.type, type, [&](auto* from, auto* to) {
    using From = std::remove_pointer_t<decltype(from)>;
    using To = std::remove_pointer_t<decltype(to)>;
    pack_rows_typed(typed<From>(b.data), b.stride, k, n, static_cast<To*>(panels));
  });
}

// a[k,m] -> tiles [m / kRowTile][k][kRowTile]. Whole registers are stored, the surplus is overwritten by the
// next row; the buffer has 16 floats of slack at its end.
void pack_columns(const Source& a, int64_t k, int64_t m, float* tiles) {
  with_type(a.type, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    for (int64_t first = 0; first < m; first += kRowTile, tiles += kRowTile * k) {
      const T* from = typed<T>(a.data) + first;
      for (int64_t i = 0; i < k; ++i, from += a.stride)
        store(tiles + i * kRowTile, m - first >= 16 ? load(from) : load_part(from, m - first));
    }
  });
}
