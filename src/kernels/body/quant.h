// Products in few bits: compiled once per ISA, included inside its namespace after the primitives
//   Floats, Integers: 16 lanes; Bytes: 64 bytes, 4 for each lane
//   start8 / start4 (sum of the activations of a group): the integers to begin with, so that adding dot8 / dot4
//   of all its quads gives the sum of (q - 128) * a, (q - 8) * a; dot4 adds q * a itself.

struct Int8 {
  static constexpr int64_t group_bytes = 512;
  static constexpr int few_rows = 4;  // that wait for memory more than for arithmetic
  static constexpr bool offsets = false;
  static Integers start(int32_t sum) { return start8(sum); }
};
struct Int4 {
  static constexpr int64_t group_bytes = 256;
  static constexpr int few_rows = 2;
  static constexpr bool offsets = false;
  static Integers start(int32_t sum) { return splat_integer(-8 * sum); }
};
struct Int4Offset {
  static constexpr int64_t group_bytes = 256;
  static constexpr int few_rows = 2;
  static constexpr bool offsets = true, in_scales = false;
  static Integers start(int32_t) { return splat_integer(0); }
};
struct Int4Zero : Int4Offset {
  static constexpr bool in_scales = true;  // an offset is a whole number of scales: their product is exact
};

// The exact sums of one group for R rows.
template <int R>
inline void group_dots(Int8, const uint8_t* w, const int8_t* a, int64_t a_row, Integers* sums) {
  for (int quad = 0; quad < 8; ++quad) {
    const Bytes bytes = load_bytes(w + quad * 64);
    for (int r = 0; r < R; ++r) sums[r] = dot8(sums[r], bytes, a + r * a_row + quad * 4);
  }
}
template <int R, class Kind>
inline void group_dots(Kind, const uint8_t* w, const int8_t* a, int64_t a_row, Integers* sums) {
  for (int quad = 0; quad < 4; ++quad) {
    const Bytes bytes = load_bytes(w + quad * 64);
    const Bytes low = low_halves(bytes), high = high_halves(bytes);
    for (int r = 0; r < R; ++r) sums[r] = dot4(sums[r], low, a + r * a_row + quad * 4);
    for (int r = 0; r < R; ++r) sums[r] = dot4(sums[r], high, a + r * a_row + quad * 4 + 16);
  }
}

// One step of the chain of a row: a group, from its exact sum.
template <class Kind>
inline Floats add_group(Floats acc, Integers sums, Floats scale, Floats offset, float a_scale, int32_t a_sum) {
  acc = fma(to_floats(sums), scale * splat(a_scale), acc);
  if constexpr (Kind::offsets) acc = fma(offset, splat(a_scale * static_cast<float>(a_sum)), acc);
  return acc;
}

// What a tile holds: integers of all groups, then scales, then offsets.
template <class Kind>
struct Factors {
  explicit Factors(const QuantTile& t)
      : scales(reinterpret_cast<const uint16_t*>(t.weight + t.groups * Kind::group_bytes)),
        offsets(scales + t.groups * 16) {}
  Floats scale(int64_t g) const { return load_halves(scales + g * 16); }
  Floats offset(int64_t g) const {
    if constexpr (!Kind::offsets)
      return splat(0.0f);
    else if constexpr (Kind::in_scales)
      return load_halves(offsets + g * 16) * scale(g);
    else
      return load_halves(offsets + g * 16);
  }
  const uint16_t *scales, *offsets;
};

// Many rows: each group at once.
template <class Kind, int R>
void quant_rows_together(const QuantTile& t, const int8_t* a, const float* a_scale, const int32_t* a_sum,
                         float* out) {
  const uint8_t* w = t.weight;
  const Factors<Kind> factors(t);
  Floats acc[R];
  for (int r = 0; r < R; ++r) acc[r] = splat(0.0f);
  for (int64_t g = 0; g < t.groups; ++g, w += Kind::group_bytes, a += 32) {
    prefetch<Kind::group_bytes>(w);
    Integers sums[R];
    for (int r = 0; r < R; ++r) sums[r] = Kind::start(a_sum[r * t.a_group_row + g]);
    group_dots<R>(Kind(), w, a, t.a_row, sums);
    const Floats scale = factors.scale(g), offset = factors.offset(g);
    for (int r = 0; r < R; ++r) {
      const int64_t at = r * t.a_group_row + g;
      acc[r] = add_group<Kind>(acc[r], sums[r], scale, offset, a_scale[at], a_sum[at]);
    }
  }
  for (int r = 0; r < R; ++r) store(out + r * 16, acc[r]);
}

// Few rows read the weight from memory as fast as it comes, if they read it in the order in which it lies: the
// processor's own prefetch stops at every jump. So the sums of all groups wait until the scales are reached.
inline constexpr int64_t kWaiting = 256;
template <class Kind, int R>
void quant_rows_in_order(const QuantTile& t, const int8_t* a, const float* a_scale, const int32_t* a_sum,
                         float* out) {
  Integers waiting[kWaiting];
  const uint8_t* w = t.weight;
  for (int64_t g = 0; g < t.groups; ++g, w += Kind::group_bytes, a += 32) {
    Integers sums[R];
    for (int r = 0; r < R; ++r) sums[r] = Kind::start(a_sum[r * t.a_group_row + g]);
    group_dots<R>(Kind(), w, a, t.a_row, sums);
    for (int r = 0; r < R; ++r) waiting[g * R + r] = sums[r];
  }
  const Factors<Kind> factors(t);
  Floats acc[R];
  for (int r = 0; r < R; ++r) acc[r] = splat(0.0f);
  for (int64_t g = 0; g < t.groups; ++g) {
    const Floats scale = factors.scale(g), offset = factors.offset(g);
    for (int r = 0; r < R; ++r) {
      const int64_t at = r * t.a_group_row + g;
      acc[r] = add_group<Kind>(acc[r], waiting[g * R + r], scale, offset, a_scale[at], a_sum[at]);
    }
  }
  for (int r = 0; r < R; ++r) store(out + r * 16, acc[r]);
}

template <class Kind, int R>
void quant_rows(const QuantTile& t, int64_t row) {
  const int8_t* a = t.a + row * t.a_row;
  const float* a_scale = t.a_scale + row * t.a_group_row;
  const int32_t* a_sum = t.a_sum + row * t.a_group_row;
  float* out = t.out + row * 16;
  if constexpr (R <= Kind::few_rows)
    if (t.groups * R <= kWaiting) return quant_rows_in_order<Kind, R>(t, a, a_scale, a_sum, out);
  quant_rows_together<Kind, R>(t, a, a_scale, a_sum, out);
}

template <class Kind, int R>
void quant_rest(const QuantTile& t, int64_t row) {
  if constexpr (R > 0) {
    if (t.rows - row == R)
      quant_rows<Kind, R>(t, row);
    else
      quant_rest<Kind, R - 1>(t, row);
  }
}

template <class Kind>
void quant_tile(const QuantTile& t) {
  int64_t row = 0;
  for (; row + kQuantRows <= t.rows; row += kQuantRows) quant_rows<Kind, kQuantRows>(t, row);
  quant_rest<Kind, kQuantRows - 1>(t, row);
}

// Plain loops over 32 integers and floats, which the compiler makes wide: the same operations on every ISA.
inline void quantize_group_of(const float* x, int8_t* q, float* scale, int32_t* sum) {
  int32_t largest = 0;  // the bits of positive floats are ordered as the floats are
  for (int i = 0; i < 32; ++i) {
    const int32_t size = __builtin_bit_cast(int32_t, x[i]) & 0x7fffffff;
    largest = largest > size ? largest : size;
  }
  const float step = __builtin_bit_cast(float, largest) / 127.0f;
  const float inverse = step > 0x1p-120f ? 1.0f / step : 0.0f;  // smaller groups count as zero
  int32_t total = 0;
  for (int i = 0; i < 32; ++i) {
    // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits.
    const int32_t rounded = __builtin_bit_cast(int32_t, x[i] * inverse + 12582912.0f) - 0x4b400000;
    q[i] = static_cast<int8_t>(rounded);
    total += q[i];
  }
  *scale = step;
  *sum = total;
}

inline void quantize_row(const float* x, int64_t width, int8_t* q, float* scale, int32_t* sum) {
  for (; width >= 32; width -= 32, x += 32, q += 32) quantize_group_of(x, q, scale++, sum++);
  if (width == 0) return;
  float rest[32] = {};
  for (int64_t i = 0; i < width; ++i) rest[i] = x[i];
  quantize_group_of(rest, q, scale, sum);
}

const QuantTable quant_table_of_isa = {
    .name = TESSERA_ISA_NAME,
    .tile_int8 = quant_tile<Int8>,
    .tile_int4 = quant_tile<Int4>,
    .tile_int4_offset = quant_tile<Int4Offset>,
    .tile_int4_zero = quant_tile<Int4Zero>,
    .quantize_row = quantize_row,
};
