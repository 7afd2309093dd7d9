#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/quant.h"
#include "kernels/scratch.h"
#include "kernels/threads.h"
#include "kernels/views.h"

namespace tessera::kernels {
namespace {

bool has_offsets(QuantKind kind) {
  return kind == QuantKind::int4_offset || kind == QuantKind::int4_zero;
}

uint16_t half_bits(float x) {
  return c10::Half(x).x;
}
float half_value(uint16_t bits) {
  return static_cast<float>(c10::Half(bits, c10::Half::from_bits()));
}

// x / scale + zero to the nearest integer, kept in [0, top]; halves go up.
void round_to(std::span<const float> values, float inverse, int zero, int top, uint8_t* q) {
  for (size_t i = 0; i < values.size(); ++i) {
    const double rounded = std::floor(static_cast<double>(values[i]) * inverse + 0.5);
    q[i] = static_cast<uint8_t>(std::clamp(static_cast<int>(rounded) + zero, 0, top));
  }
}

float inverse_of(float scale) {
  return scale == 0 ? 0.0f : 1.0f / scale;
}

float largest_by_size(std::span<const float> values) {
  float result = 0;
  for (float value : values)
    if (std::abs(value) > std::abs(result)) result = value;
  return result;
}

// The byte of element i of a group of one row, and the place of its half-precision factors, inside a tile.
struct Places {
  int64_t quants, factor, offset;
};
Places places_of(const QuantShape& shape, int64_t lane, int64_t group) {
  const int64_t groups = shape.block_groups(), factors = groups * shape.group_bytes();
  const int64_t factor = factors + (group * kQuantPanel + lane) * 2;
  return {.quants = group * shape.group_bytes() + lane * 4,
          .factor = factor,
          .offset = factor + groups * kQuantPanel * 2};
}
int64_t byte_of(const Places& places, int64_t quad, int64_t i) {
  return places.quants + quad * 64 + i % 4;
}

QuantGroup group_of_tile(const QuantShape& shape, const uint8_t* tile, int64_t lane, int64_t group) {
  const Places places = places_of(shape, lane, group);
  QuantGroup value;
  for (int64_t i = 0; i < kQuantGroup; ++i) {
    const bool upper = shape.kind != QuantKind::int8 && i >= kQuantGroup / 2;
    const uint8_t byte = tile[byte_of(places, upper ? i / 4 - 4 : i / 4, i)];
    value.q[i] = shape.kind == QuantKind::int8 ? byte : upper ? byte >> 4 : byte & 15;
  }
  std::memcpy(&value.scale, tile + places.factor, 2);
  if (has_offsets(shape.kind)) std::memcpy(&value.offset, tile + places.offset, 2);
  return value;
}

// Where the tile of a row and block begins, after a check of all indices.
int64_t tile_of(const QuantShape& shape, int64_t bytes, int64_t row, int64_t block, int64_t group) {
  TESSERA_REQUIRE(bytes == shape.bytes() && row >= 0 && row < shape.n && block >= 0 && block < shape.blocks &&
                      group >= 0 && group < shape.block_groups(),
                  "group {} of block {} of row {} of a weight [{}, {}] in {} bytes", group, block, row, shape.n,
                  shape.k, bytes);
  return (row / kQuantPanel * shape.blocks + block) * shape.tile_bytes();
}

}  // namespace

const char* to_string(QuantKind kind) {
  constexpr const char* kNames[] = {"int8", "int4", "int4-offset", "int4-zero"};
  return kNames[static_cast<size_t>(kind)];
}

int64_t QuantShape::tile_bytes() const {
  const int64_t factors = has_offsets(kind) ? 2 : 1;
  return (block_groups() * (group_bytes() + factors * kQuantPanel * 2) + 63) / 64 * 64;
}

QuantGroup quantize_group(QuantKind kind, std::span<const float> values) {
  TESSERA_REQUIRE(values.size() <= kQuantGroup, "a group of {} values", values.size());
  QuantGroup group;
  if (kind == QuantKind::int8) {
    const float scale = std::abs(largest_by_size(values)) / 127.0f;
    group.scale = half_bits(scale);
    std::fill_n(group.q, kQuantGroup, uint8_t{128});
    round_to(values, inverse_of(scale), 128, 255, group.q);
  } else if (kind == QuantKind::int4) {
    const float scale = largest_by_size(values) / -8.0f;
    group.scale = half_bits(scale);
    std::fill_n(group.q, kQuantGroup, uint8_t{8});
    round_to(values, inverse_of(scale), 8, 15, group.q);
  } else if (kind == QuantKind::int4_zero) {
    // Zero is one of the values, so that it is among the sixteen.
    const auto [least, most] = std::minmax_element(values.begin(), values.end());
    const float low = values.empty() ? 0 : std::min(*least, 0.0f),
                high = values.empty() ? 0 : std::max(*most, 0.0f);
    group.scale = half_bits((high - low) / 15.0f);
    const float inverse = inverse_of(half_value(group.scale));
    const int zero = std::clamp(static_cast<int>(std::floor(-low * inverse + 0.5f)), 0, 15);
    group.offset = half_bits(static_cast<float>(-zero));
    std::fill_n(group.q, kQuantGroup, static_cast<uint8_t>(zero));
    round_to(values, inverse, zero, 15, group.q);
  } else if (!values.empty()) {
    const auto [least, most] = std::minmax_element(values.begin(), values.end());
    group.scale = half_bits((*most - *least) / 15.0f);
    group.offset = half_bits(*least);
    const float offset = half_value(group.offset);
    float from_offset[kQuantGroup];
    for (size_t i = 0; i < values.size(); ++i) from_offset[i] = values[i] - offset;
    round_to({from_offset, values.size()}, inverse_of(half_value(group.scale)), 0, 15, group.q);
  }
  return group;
}

void dequantize_group(QuantKind kind, const QuantGroup& group, std::span<float> values) {
  const float scale = half_value(group.scale), offset = half_value(group.offset);
  const int zero = kind == QuantKind::int8 ? 128 : kind == QuantKind::int4 ? 8 : 0;
  for (size_t i = 0; i < values.size(); ++i) {
    if (kind == QuantKind::int4_zero) {
      values[i] = (static_cast<float>(group.q[i]) + offset) * scale;
      continue;
    }
    const float value = static_cast<float>(group.q[i] - zero) * scale;
    values[i] = kind == QuantKind::int4_offset ? value + offset : value;
  }
}

void set_group(const QuantShape& shape, std::span<uint8_t> bytes, int64_t row, int64_t block, int64_t group,
               const QuantGroup& value) {
  uint8_t* to = bytes.data() + tile_of(shape, std::ssize(bytes), row, block, group);
  const Places places = places_of(shape, row % kQuantPanel, group);
  for (int64_t i = 0; i < kQuantGroup; ++i) {
    if (shape.kind == QuantKind::int8) {
      to[byte_of(places, i / 4, i)] = value.q[i];
    } else if (i < kQuantGroup / 2) {
      to[byte_of(places, i / 4, i)] = static_cast<uint8_t>(value.q[i] | value.q[i + kQuantGroup / 2] << 4);
    }
  }
  std::memcpy(to + places.factor, &value.scale, 2);
  if (has_offsets(shape.kind)) std::memcpy(to + places.offset, &value.offset, 2);
}

QuantGroup get_group(const QuantShape& shape, std::span<const uint8_t> bytes, int64_t row, int64_t block,
                     int64_t group) {
  const int64_t tile = tile_of(shape, std::ssize(bytes), row, block, group);
  return group_of_tile(shape, bytes.data() + tile, row % kQuantPanel, group);
}

QuantWeight::QuantWeight(const QuantShape& shape, at::Tensor bytes)
    : shape_(shape), rows_(shape.n), blocks_(shape.blocks), bytes_(std::move(bytes)) {
  TESSERA_REQUIRE(shape.blocks > 0 && shape.k % shape.blocks == 0, "{} blocks of k = {}", shape.blocks,
                  shape.k);
  TESSERA_REQUIRE(
      bytes_.scalar_type() == at::kByte && bytes_.is_contiguous() && bytes_.numel() == shape.bytes(),
      "a packed {} weight [{}, {}] has {} bytes, got {}", to_string(shape.kind), shape.n, shape.k,
      shape.bytes(), bytes_.numel());
  data_ = bytes_.const_data_ptr<uint8_t>();
}

std::span<const uint8_t> QuantWeight::bytes() const {
  TESSERA_REQUIRE(blocks_ == shape_.blocks, "the bytes of {} blocks of {} do not lie together", blocks_,
                  shape_.blocks);
  QuantShape part = shape_;
  part.n = rows_;
  return {tile(0, 0), static_cast<size_t>(part.bytes())};
}

QuantWeight QuantWeight::rows(int64_t first, int64_t count) const {
  TESSERA_REQUIRE(first % kQuantPanel == 0 && first >= 0 && count >= 0 && first + count <= rows_,
                  "rows [{}, {}) of {} of a packed weight: they begin at a multiple of 16", first,
                  first + count, rows_);
  QuantWeight part = *this;
  part.first_panel_ += first / kQuantPanel;
  part.rows_ = count;
  return part;
}

QuantWeight QuantWeight::block_range(int64_t first, int64_t count) const {
  TESSERA_REQUIRE(first >= 0 && count > 0 && first + count <= blocks_, "blocks [{}, {}) of {}", first,
                  first + count, blocks_);
  QuantWeight part = *this;
  part.first_block_ += first;
  part.blocks_ = count;
  return part;
}

QuantGroup QuantWeight::group(int64_t row, int64_t block, int64_t group) const {
  TESSERA_REQUIRE(
      row >= 0 && row < rows_ && block >= 0 && block < blocks_ && group >= 0 && group < block_groups(),
      "group {} of block {} of row {} of a weight of {} rows in {} blocks", group, block, row, rows_, blocks_);
  return group_of_tile(shape_, tile(row / kQuantPanel, block), row % kQuantPanel, group);
}

void QuantWeight::dequantize_row(int64_t row, std::span<float> values) const {
  TESSERA_REQUIRE(std::ssize(values) == k(), "a row of {} into {} values", k(), values.size());
  const int64_t width = shape_.k / shape_.blocks;
  for (int64_t block = 0; block < blocks_; ++block)
    for (int64_t at = 0; at < width; at += kQuantGroup) {
      const auto count = static_cast<size_t>(std::min(kQuantGroup, width - at));
      dequantize_group(kind(), group(row, block, at / kQuantGroup),
                       values.subspan(static_cast<size_t>(block * width + at), count));
    }
}

QuantWeight QuantWeight::any_rows(int64_t first, int64_t count) const {
  if (first % kQuantPanel == 0) return rows(first, count);
  const QuantShape shape{.kind = kind(), .n = count, .k = k(), .blocks = blocks_};
  at::Tensor bytes = at::zeros({shape.bytes()}, at::kByte);
  std::span<uint8_t> to(bytes.data_ptr<uint8_t>(), static_cast<size_t>(bytes.numel()));
  for (int64_t row = 0; row < count; ++row)
    for (int64_t block = 0; block < blocks_; ++block)
      for (int64_t g = 0; g < block_groups(); ++g)
        set_group(shape, to, row, block, g, group(first + row, block, g));
  return {shape, bytes};
}

void embedding_quant(const QuantWeight& weight, const at::Tensor& tokens, int64_t first, at::Tensor& out) {
  const Rows to = rows_of(out, "embedding_quant out");
  check_shape(tokens, {to.count}, "embedding_quant tokens");
  TESSERA_REQUIRE(weight.k() == to.width, "embedding_quant: weight is {} wide, out {}", weight.k(), to.width);
  const int64_t* token = longs(tokens, "embedding_quant tokens");
  parallel_ranges(to.count, 16, [&](int64_t begin, int64_t end) {
    Scratch row(to.width);
    for (int64_t t = begin; t < end; ++t) {
      const int64_t at = token[t] - first;
      std::span<float> values(row.data(), static_cast<size_t>(to.width));
      if (at >= 0 && at < weight.n())
        weight.dequantize_row(at, values);
      else
        std::ranges::fill(values, 0.0f);
      table().convert({row.data(), Type::f32, to.width}, to.target(t), 1, to.width);
    }
  });
}

QuantWeight quantize(QuantKind kind, const at::Tensor& weight_NK, int64_t blocks) {
  const Rows weight = rows_of(weight_NK, "weight to quantise");
  const QuantShape shape{.kind = kind, .n = weight.count, .k = weight.width, .blocks = blocks};
  at::Tensor bytes = at::empty({shape.bytes()}, at::kByte);
  QuantWeight packed(shape, bytes);
  std::span<uint8_t> to(bytes.data_ptr<uint8_t>(), static_cast<size_t>(bytes.numel()));
  const int64_t width = shape.k / blocks;
  parallel_ranges(shape.panels(), 1, [&](int64_t begin, int64_t end) {
    const int64_t panel_bytes = blocks * shape.tile_bytes();
    std::fill(to.begin() + begin * panel_bytes, to.begin() + end * panel_bytes,
              uint8_t{0});  // scales of rows past n
    Scratch row(std::max<int64_t>(shape.k, 1));
    for (int64_t n = begin * kQuantPanel; n < std::min(end * kQuantPanel, shape.n); ++n) {
      table().convert(weight.source(n), {row.data(), Type::f32, shape.k}, 1, shape.k);
      for (int64_t b = 0; b < blocks; ++b)
        for (int64_t k = 0; k < width; k += kQuantGroup) {
          const auto count = static_cast<size_t>(std::min(kQuantGroup, width - k));
          set_group(shape, to, n, b, k / kQuantGroup,
                    quantize_group(kind, {row.data() + b * width + k, count}));
        }
    }
  });
  return packed;
}

}  // namespace tessera::kernels
