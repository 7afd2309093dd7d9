// Products in few bits: compiled once per ISA, included inside its namespace after the primitives
//   Floats, Integers: 16 lanes; Bytes: 64 bytes, 4 for each lane
//   start8 / start4 (sum of the activations of a group): the integers to begin with, so that adding dot8 / dot4
//   of all its quads gives the sum of (q - 128) * a, (q - 8) * a; dot4 adds q * a itself.

struct Int8 {
  static constexpr int64_t group_bytes = 512;
  static constexpr bool offsets = false;
  static Integers start(int32_t sum) { return start8(sum); }
};
struct Int4 {
  static constexpr int64_t group_bytes = 256;
  static constexpr bool offsets = false;
  static Integers start(int32_t sum) { return splat_integer(-8 * sum); }
};
struct Int4Offset {
  static constexpr int64_t group_bytes = 256;
  static constexpr bool offsets = true;
  static Integers start(int32_t) { return splat_integer(0); }
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

template <class Kind, int R>
void quant_rows(const QuantTile& t, int64_t row) {
  const int8_t* a = t.a + row * t.a_row;
  const float* a_scale = t.a_scale + row * t.a_group_row;
  const int32_t* a_sum = t.a_sum + row * t.a_group_row;
  const uint8_t* w = t.weight;
  const uint16_t* scales = reinterpret_cast<const uint16_t*>(w + t.groups * Kind::group_bytes);
  const uint16_t* offsets = scales + t.groups * 16;
  Floats acc[R];
  for (int r = 0; r < R; ++r) acc[r] = splat(0.0f);
  for (int64_t g = 0; g < t.groups; ++g, w += Kind::group_bytes, a += 32) {
    prefetch<Kind::group_bytes>(w);
    Integers sums[R];
    for (int r = 0; r < R; ++r) sums[r] = Kind::start(a_sum[r * t.a_group_row + g]);
    group_dots<R>(Kind(), w, a, t.a_row, sums);
    const Floats scale = load_halves(scales + g * 16);
    for (int r = 0; r < R; ++r)
      acc[r] = fma(to_floats(sums[r]), scale * splat(a_scale[r * t.a_group_row + g]), acc[r]);
    if constexpr (Kind::offsets) {
      const Floats offset = load_halves(offsets + g * 16);
      for (int r = 0; r < R; ++r) {
        const int64_t at = r * t.a_group_row + g;
        acc[r] = fma(offset, splat(a_scale[at] * static_cast<float>(a_sum[at])), acc[r]);
      }
    }
  }
  for (int r = 0; r < R; ++r) store(t.out + (row + r) * 16, acc[r]);
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
    .quantize_row = quantize_row,
};
