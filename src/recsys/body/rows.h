// Loops over one row, written so that the compiler turns them into vectors of the level it compiles for.

inline uint32_t bits_of(float value) {
  return __builtin_bit_cast(uint32_t, value);
}
inline float float_of(uint32_t bits) {
  return __builtin_bit_cast(float, bits);
}

// The finalizer of MurmurHash3: every bit of the input reaches every bit of the output.
inline uint32_t mix32(uint32_t x) {
  x ^= x >> 16;
  x *= 0x85ebca6bu;
  x ^= x >> 13;
  x *= 0xc2b2ae35u;
  return x ^ (x >> 16);
}
inline uint32_t random_of(uint32_t seed, int64_t i) {
  return mix32(seed + static_cast<uint32_t>(i) * 0x9e3779b9u);
}

constexpr int64_t kRowLanes = 16;

// Sixteen lanes in four registers that every level has: element i belongs to lane i mod 16.
typedef float Lanes __attribute__((vector_size(16), aligned(4)));

inline float lane_tree(const float* lanes) {
  float sums[kRowLanes / 2];
  for (int64_t l = 0; l < 8; ++l) sums[l] = lanes[l] + lanes[l + 8];
  for (int64_t l = 0; l < 4; ++l) sums[l] += sums[l + 4];
  return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

float sum_of_squares(const float* values, int64_t dim) {
  Lanes sum0 = {}, sum1 = {}, sum2 = {}, sum3 = {};
  int64_t whole = dim - dim % kRowLanes;
  for (int64_t i = 0; i < whole; i += kRowLanes) {
    const Lanes* x = reinterpret_cast<const Lanes*>(values + i);
    sum0 += x[0] * x[0];
    sum1 += x[1] * x[1];
    sum2 += x[2] * x[2];
    sum3 += x[3] * x[3];
  }
  if (whole == dim) {  // the tree of lane_tree() in registers
    Lanes halves = (sum0 + sum2) + (sum1 + sum3);
    return (halves[0] + halves[2]) + (halves[1] + halves[3]);
  }
  float lanes[kRowLanes];
  __builtin_memcpy(lanes, &sum0, sizeof sum0);
  __builtin_memcpy(lanes + 4, &sum1, sizeof sum1);
  __builtin_memcpy(lanes + 8, &sum2, sizeof sum2);
  __builtin_memcpy(lanes + 12, &sum3, sizeof sum3);
  for (int64_t i = whole; i < dim; ++i) lanes[i - whole] += values[i] * values[i];
  return lane_tree(lanes);
}

void add(const float* __restrict values, int64_t dim, float* __restrict into) {
  for (int64_t i = 0; i < dim; ++i) into[i] += values[i];
}

bool finite(const float* values, int64_t dim) {
  uint32_t bad = 0;
  for (int64_t i = 0; i < dim; ++i) bad |= (bits_of(values[i]) & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
  return bad == 0;
}

void initial(const InitStep& step, int64_t dim, float* __restrict values) {
  if (step.kind != 2) {
    for (int64_t i = 0; i < dim; ++i) values[i] = step.base;
    return;
  }
  for (int64_t i = 0; i < dim; ++i) {
    uint32_t random = mix32(random_of(step.key_low, i) ^ step.key_high);
    values[i] = step.base + step.width * (static_cast<float>(static_cast<int32_t>(random >> 8)) * 0x1p-24f);
  }
}

// ---- row types ----

void load_f32(const std::byte* __restrict row, int64_t dim, float* __restrict values) {
  const float* from = reinterpret_cast<const float*>(row);
  for (int64_t i = 0; i < dim; ++i) values[i] = from[i];
}
void store_f32(const float* __restrict values, int64_t dim, std::byte* __restrict row, uint32_t) {
  float* to = reinterpret_cast<float*>(row);
  for (int64_t i = 0; i < dim; ++i) to[i] = values[i];
}

void load_bf16(const std::byte* __restrict row, int64_t dim, float* __restrict values) {
  const uint16_t* from = reinterpret_cast<const uint16_t*>(row);
  for (int64_t i = 0; i < dim; ++i) values[i] = float_of(static_cast<uint32_t>(from[i]) << 16);
}
void store_bf16(const float* __restrict values, int64_t dim, std::byte* __restrict row, uint32_t random) {
  uint16_t* to = reinterpret_cast<uint16_t*>(row);
  if (random == 0) {
    for (int64_t i = 0; i < dim; ++i) {
      uint32_t bits = bits_of(values[i]);
      to[i] = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
    }
    return;
  }
  for (int64_t i = 0; i < dim; ++i)
    to[i] = static_cast<uint16_t>((bits_of(values[i]) + (random_of(random, i) & 0xffffu)) >> 16);
}

void load_f16(const std::byte* __restrict row, int64_t dim, float* __restrict values) {
  const uint16_t* from = reinterpret_cast<const uint16_t*>(row);
  for (int64_t i = 0; i < dim; ++i) {
    uint32_t half = from[i], magnitude = half & 0x7fffu;
    // A multiplication moves the exponent and normalises subnormals at once.
    uint32_t scaled = bits_of(float_of(magnitude << 13) * 0x1p112f);
    uint32_t infinite = magnitude >= 0x7c00u ? 0x7f800000u : 0u;
    values[i] = float_of(scaled | infinite | ((half & 0x8000u) << 16));
  }
}
inline uint32_t nearest_half(uint32_t magnitude) {
  uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  // Below 2^-14 the unit of a half is 2^-24, as that of a float near 0.5.
  uint32_t small = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u;
  uint32_t finite_half = magnitude < 0x38800000u ? small : normal;
  uint32_t overflown = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  return magnitude >= 0x477ff000u ? overflown : finite_half;
}
// Values beyond the largest half stay there: infinity is no neighbour to round to.
inline uint32_t stochastic_half(uint32_t magnitude, uint32_t random) {
  uint32_t capped = magnitude > 0x477fe000u ? 0x477fe000u : magnitude;
  uint32_t normal = (capped - 0x38000000u + (random & 0x1fffu)) >> 13;
  float units = float_of(capped) * 0x1p24f + static_cast<float>(static_cast<int32_t>(random >> 9)) * 0x1p-23f;
  uint32_t small = static_cast<uint32_t>(static_cast<int32_t>(capped < 0x38800000u ? units : 0.0f));
  uint32_t half = capped < 0x38800000u ? small : normal;
  return half > 0x7bffu ? 0x7bffu : half;
}
void store_f16(const float* __restrict values, int64_t dim, std::byte* __restrict row, uint32_t random) {
  uint16_t* to = reinterpret_cast<uint16_t*>(row);
  for (int64_t i = 0; i < dim; ++i) {
    uint32_t bits = bits_of(values[i]), magnitude = bits & 0x7fffffffu;
    uint32_t half = random == 0 ? nearest_half(magnitude) : stochastic_half(magnitude, random_of(random, i));
    to[i] = static_cast<uint16_t>(half | ((bits >> 16) & 0x8000u));
  }
}

void load_i8(const std::byte* __restrict row, int64_t dim, float* __restrict values) {
  float scale = *reinterpret_cast<const float*>(row);
  const int8_t* from = reinterpret_cast<const int8_t*>(row + sizeof(float));
  for (int64_t i = 0; i < dim; ++i) values[i] = static_cast<float>(from[i]) * scale;
}
void store_i8(const float* __restrict values, int64_t dim, std::byte* __restrict row, uint32_t random) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < dim; ++i) {
    uint32_t magnitude = bits_of(values[i]) & 0x7fffffffu;
    largest = magnitude > largest ? magnitude : largest;
  }
  float scale = float_of(largest) / 127.0f;
  float inverse = scale > 0 ? 127.0f / float_of(largest) : 0.0f;
  if (!(inverse < 0x1p126f)) scale = inverse = 0;  // subnormal rows count as zeros
  *reinterpret_cast<float*>(row) = scale;
  int8_t* to = reinterpret_cast<int8_t*>(row + sizeof(float));
  for (int64_t i = 0; i < dim; ++i) {
    float shift = static_cast<float>(static_cast<int32_t>(random_of(random, i) >> 8)) * 0x1p-24f - 0.5f;
    float units = values[i] * inverse + (random == 0 ? 0.0f : shift);
    units = units > 127.0f ? 127.0f : units < -127.0f ? -127.0f : units;
    // Adding 1.5 * 2^23 leaves the integer nearest to `units` in the low bits.
    to[i] = static_cast<int8_t>(static_cast<int32_t>(bits_of(units + 0x1.8p23f) - 0x4b400000u));
  }
}
