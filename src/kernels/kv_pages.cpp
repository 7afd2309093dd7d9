#include "kernels/kv_pages.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/large_pages.h"
#include "kernels/scratch.h"
#include "kernels/threads.h"
#include "kernels/views.h"

namespace tessera::kernels {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements worth a thread
constexpr KvType kTypes[] = {KvType::f32, KvType::bf16, KvType::int8, KvType::fp8};

// The nearest E4M3 to x, |x| <= 448, halves to even.
uint8_t fp8_of(float x) {
  const auto bits = __builtin_bit_cast(uint32_t, x);
  const auto sign = static_cast<uint8_t>(bits >> 24 & 0x80);
  const uint32_t size = bits & 0x7fffffff;
  if (size > 0x7f800000) return sign | 0x7f;
  // Below 2^-6 the step is 2^-9: adding 2^14 leaves it in the last bit of a float.
  if (size < 0x3c800000) {
    const float rounded = __builtin_bit_cast(float, size) + 0x1p14f;
    return sign | static_cast<uint8_t>(__builtin_bit_cast(uint32_t, rounded) & 0xff);
  }
  const uint32_t rounded = size + 0x7ffff + (size >> 20 & 1);
  const uint32_t value = (rounded >> 20) - (120u << 3);
  return sign | static_cast<uint8_t>(std::min(value, 0x7eu));
}

uint8_t int8_of(float x) {
  // Adding 1.5 * 2^23 rounds to the nearest integer, halves to even, and leaves it in the low bits.
  return static_cast<uint8_t>(__builtin_bit_cast(int32_t, x + 12582912.0f) - 0x4b400000);
}

// One token of one head as bytes; returns its scale.
float to_bytes(KvType type, const float* x, int64_t width, uint8_t* bytes) {
  uint32_t largest = 0;  // the bits of positive floats are ordered as the floats are, and NaN is above them
  for (int64_t i = 0; i < width; ++i)
    largest = std::max(largest, __builtin_bit_cast(uint32_t, x[i]) & 0x7fffffff);
  const float scale = __builtin_bit_cast(float, largest) / (type == KvType::int8 ? 127.0f : 448.0f);
  const float inverse = scale > 0x1p-120f ? 1.0f / scale : 0.0f;  // smaller ones count as zero
  for (int64_t i = 0; i < width; ++i)
    bytes[i] = type == KvType::int8 ? int8_of(x[i] * inverse) : fp8_of(x[i] * inverse);
  return scale;
}

// Places of one token in the part of one head.
struct Place {
  const KvShape& shape;
  char* head;
  int64_t offset;  // of the token in its block

  int64_t lane() const { return offset % 16; }
  bool odd() const { return offset % 2 == 1; }
  char* key_panel() const { return head + offset / 16 * shape.key_panel_bytes(); }
  char* value_panel() const { return head + shape.values_at() + offset / 16 * shape.value_panel_bytes(); }
  float* scales() const { return reinterpret_cast<float*>(head + shape.scales_at()); }
};

void put_floats(const Place& place, const float* key, const float* value) {
  const KvShape& shape = place.shape;
  auto* keys = reinterpret_cast<float*>(place.key_panel()) + place.lane();
  for (int64_t e = 0; e < shape.head_dim; ++e) keys[e * 16] = key[e];
  if (shape.latent > 0) return;
  auto* values = reinterpret_cast<float*>(place.value_panel()) + place.lane() * shape.value_width();
  std::copy_n(value, shape.head_dim, values);
}

void put_pairs(const Place& place, const uint16_t* key, const uint16_t* value) {
  const KvShape& shape = place.shape;
  auto* keys = reinterpret_cast<uint16_t*>(place.key_panel()) + place.lane() * 2;
  for (int64_t e = 0; e < shape.head_dim; ++e) keys[e / 2 * 32 + e % 2] = key[e];
  if (shape.head_dim % 2 == 1) keys[shape.head_dim / 2 * 32 + 1] = 0;
  if (shape.latent > 0) return;
  auto* values = reinterpret_cast<uint16_t*>(place.value_panel()) + place.lane() / 2 * shape.value_width() * 2;
  for (int64_t e = 0; e < shape.head_dim; ++e) {
    values[e * 2 + place.odd()] = value[e];
    if (!place.odd()) values[e * 2 + 1] = 0;
  }
}

void put_bytes(const Place& place, const uint8_t* key, const uint8_t* value, float key_scale,
               float value_scale) {
  const KvShape& shape = place.shape;
  auto* keys = reinterpret_cast<uint8_t*>(place.key_panel()) + place.lane();
  for (int64_t e = 0; e < shape.head_dim; ++e) keys[e * 16] = key[e];
  if (shape.head_dim % 2 == 1) keys[shape.head_dim * 16] = 0;
  place.scales()[place.offset] = key_scale;
  if (shape.latent > 0) return;
  auto* values = reinterpret_cast<uint8_t*>(place.value_panel()) + place.lane() / 2 * shape.value_width() * 2;
  for (int64_t e = 0; e < shape.head_dim; ++e) {
    uint8_t* pair = values + e / 16 * 32 + e % 16;
    pair[place.odd() ? 16 : 0] = value[e];
    if (!place.odd()) pair[16] = 0;
  }
  place.scales()[shape.block_tokens + place.offset] = value_scale;
}

// Heads [first, end) of a token in the type of the pages. Threads take heads apart: two tokens share words.
class HeadWriter {
 public:
  HeadWriter(const KvShape& shape, int64_t first, int64_t end)
      : shape_(shape), first_(first), end_(end), floats_(2 * width()), bytes_(shape.head_dim) {}

  void write(const Source& k, const Source& v, char* block, int64_t offset) {
    float *key = floats_.data(), *value = key + width();
    const Type type = shape_.type == KvType::bf16 ? Type::bf16 : Type::f32;
    table().convert(shifted(k, first_ * shape_.head_dim), {key, type, width()}, 1, width());
    table().convert(shifted(v, first_ * shape_.head_dim), {value, type, width()}, 1, width());
    for (int64_t head = first_; head < end_; ++head) {
      const Place place{shape_, block + head * shape_.head_bytes(), offset};
      const int64_t at = (head - first_) * shape_.head_dim;
      if (shape_.type == KvType::f32)
        put_floats(place, key + at, value + at);
      else if (shape_.type == KvType::bf16)
        put_pairs(place, reinterpret_cast<uint16_t*>(key) + at, reinterpret_cast<uint16_t*>(value) + at);
      else
        write_bytes(place, key + at, value + at);
    }
  }

 private:
  int64_t width() const { return (end_ - first_) * shape_.head_dim; }
  void write_bytes(const Place& place, const float* key, const float* value) {
    auto* bytes = reinterpret_cast<uint8_t*>(bytes_.data());
    const int64_t count = shape_.head_dim;
    const float key_scale = to_bytes(shape_.type, key, count, bytes);
    const float value_scale = to_bytes(shape_.type, value, count, bytes + count);
    put_bytes(place, bytes, bytes + count, key_scale, value_scale);
  }

  const KvShape& shape_;
  int64_t first_, end_;
  Scratch floats_, bytes_;
};

}  // namespace

const char* to_string(KvType type) {
  constexpr const char* kNames[] = {"float32", "bf16", "int8", "fp8"};
  return kNames[static_cast<size_t>(type)];
}

std::optional<KvType> kv_type_named(std::string_view name) {
  for (KvType type : kTypes)
    if (name == to_string(type)) return type;
  return std::nullopt;
}

KvPages::KvPages(const KvShape& shape, int64_t blocks) : shape_(shape), blocks_(blocks) {
  TESSERA_REQUIRE(shape.block_tokens > 0 && shape.block_tokens % 16 == 0 && shape.heads > 0 &&
                      shape.head_dim > 0 && shape.latent <= shape.head_dim,
                  "KV blocks of {} tokens, {} heads of {}: tokens are a multiple of 16", shape.block_tokens,
                  shape.heads, shape.head_dim);
  if (blocks > 0) bytes_ = large_bytes(blocks * shape.block_bytes());
}

std::span<std::byte> KvPages::block(int64_t i) const {
  TESSERA_REQUIRE(i >= 0 && i < blocks_, "KV block {} of {}", i, blocks_);
  const auto bytes = static_cast<size_t>(shape_.block_bytes());
  return {static_cast<std::byte*>(bytes_.data_ptr()) + static_cast<size_t>(i) * bytes, bytes};
}

void write_kv(const at::Tensor& k_TKE, const at::Tensor& v_TKE, const at::Tensor& slot_T, KvPages& pages) {
  const KvShape& shape = pages.shape();
  // Latent pages have no values: the keys stand in for them and are not stored twice.
  const Rows k = rows_of(k_TKE, "write_kv k"), v = shape.latent > 0 ? k : rows_of(v_TKE, "write_kv v");
  const int64_t width = shape.heads * shape.head_dim;
  TESSERA_REQUIRE(k.width == width && v.width == width && k.count == v.count,
                  "write_kv: k has {} rows of {}, v {} of {}, a cache row is {}", k.count, k.width, v.count,
                  v.width, width);
  check_shape(slot_T, {k.count}, "write_kv slot");
  const int64_t* slot = longs(slot_T, "write_kv slot");
  for (int64_t t = 0; t < k.count; ++t)
    TESSERA_REQUIRE(slot[t] >= 0 && slot[t] < pages.blocks() * shape.block_tokens, "write_kv: slot {} of {}",
                    slot[t], pages.blocks() * shape.block_tokens);
  const int64_t grain = std::max<int64_t>(kGrain / std::max<int64_t>(k.count * shape.head_dim, 1), 1);
  parallel_ranges(shape.heads, grain, [&](int64_t first, int64_t end) {
    HeadWriter writer(shape, first, end);
    for (int64_t t = 0; t < k.count; ++t) {
      auto* block = reinterpret_cast<char*>(pages.block(slot[t] / shape.block_tokens).data());
      writer.write(k.source(t), v.source(t), block, slot[t] % shape.block_tokens);
    }
  });
}

}  // namespace tessera::kernels
