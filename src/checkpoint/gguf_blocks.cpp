#include "checkpoint/gguf_blocks.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cstring>

namespace tessera::checkpoint {
namespace {

using kernels::kQuantGroup;
using kernels::QuantGroup;
using kernels::QuantKind;

struct Known {
  GgufType type;
  const char* name;
  int64_t elements, bytes;
};
constexpr Known kKnown[] = {{GgufType::f32, "F32", 1, 4},       {GgufType::f16, "F16", 1, 2},
                            {GgufType::bf16, "BF16", 1, 2},     {GgufType::q4_0, "Q4_0", 32, 18},
                            {GgufType::q4_1, "Q4_1", 32, 20},   {GgufType::q8_0, "Q8_0", 32, 34},
                            {GgufType::q4_k, "Q4_K", 256, 144}, {GgufType::q6_k, "Q6_K", 256, 210}};

const Known& known(GgufType type) {
  for (const Known& each : kKnown)
    if (each.type == type) return each;
  return kKnown[0];
}

uint16_t half_bits(const uint8_t* p) {
  return static_cast<uint16_t>(p[0] | p[1] << 8);
}
float half(const uint8_t* p) {
  return static_cast<float>(c10::Half(half_bits(p), c10::Half::from_bits()));
}
uint16_t bits_of_half(float x) {
  return c10::Half(x).x;
}

// The scale and the least of group j of a q4_k block: 6 bits each, in 12 bytes.
struct SixBits {
  int scale, least;
};
SixBits six_bits(const uint8_t* p, int64_t j) {
  if (j < 4) return {p[j] & 63, p[j + 4] & 63};
  return {(p[j + 4] & 15) | (p[j - 4] >> 6) << 4, p[j + 4] >> 4 | (p[j] >> 6) << 4};
}

// The 32 numbers of 4 bits of group j of a q4_k block.
void q4_k_quants(const uint8_t* block, int64_t j, uint8_t* q) {
  const uint8_t* bytes = block + 16 + j / 2 * 32;
  for (int i = 0; i < 32; ++i) q[i] = j % 2 == 0 ? bytes[i] & 15 : bytes[i] >> 4;
}

void q4_k_group(const uint8_t* block, int64_t j, float* values) {
  const SixBits factors = six_bits(block + 4, j);
  const float scale = half(block) * static_cast<float>(factors.scale);
  const float least = half(block + 2) * static_cast<float>(factors.least);
  uint8_t q[32];
  q4_k_quants(block, j, q);
  for (int i = 0; i < 32; ++i) values[i] = scale * q[i] - least;
}

// Group j of 32 of a q6_k block: 128 bytes of lower halves, 64 of upper pairs of bits, 16 scales, a half.
void q6_k_group(const uint8_t* block, int64_t j, float* values) {
  const int64_t part = j / 4, quarter = j % 4;  // of 128 numbers, of 32
  const uint8_t* low = block + part * 64 + quarter % 2 * 32;
  const uint8_t* high = block + 128 + part * 32;
  const auto* scales = reinterpret_cast<const int8_t*>(block) + 192 + part * 8 + quarter * 2;
  for (int i = 0; i < 32; ++i) {
    const int lower = quarter < 2 ? low[i] & 15 : low[i] >> 4, upper = high[i] >> (2 * quarter) & 3;
    values[i] = half(block + 208) * scales[i / 16] * static_cast<float>((lower | upper << 4) - 32);
  }
}

QuantGroup q8_0_group(const uint8_t* block) {
  QuantGroup group;
  group.scale = half_bits(block);
  for (int i = 0; i < 32; ++i) group.q[i] = block[2 + i] ^ 0x80;  // int8 + 128
  return group;
}

QuantGroup four_bits(const uint8_t* bytes) {
  QuantGroup group;
  for (int i = 0; i < 16; ++i) {
    group.q[i] = bytes[i] & 15;
    group.q[i + 16] = bytes[i] >> 4;
  }
  return group;
}

void dequantize_group(GgufType type, const uint8_t* block, int64_t j, float* values) {
  if (type == GgufType::q4_k) return q4_k_group(block, j, values);
  if (type == GgufType::q6_k) return q6_k_group(block, j, values);
  const auto bytes = std::span(block, static_cast<size_t>(block_bytes(type)));
  kernels::dequantize_group(*quant_kind_of(type), group_of(type, bytes, 0), {values, 32});
}

}  // namespace

Result<GgufType> gguf_type(uint32_t number) {
  std::string names;
  for (const Known& each : kKnown) {
    if (static_cast<uint32_t>(each.type) == number) return each.type;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", each.name);
  }
  return invalid("elements of type {}; those that are read: {}; quantise the model to one of them", number,
                 names);
}

const char* to_string(GgufType type) {
  return known(type).name;
}
int64_t block_elements(GgufType type) {
  return known(type).elements;
}
int64_t block_bytes(GgufType type) {
  return known(type).bytes;
}

std::optional<QuantKind> quant_kind_of(GgufType type) {
  switch (type) {
    case GgufType::q8_0:
    case GgufType::q6_k:
      return QuantKind::int8;
    case GgufType::q4_0:
      return QuantKind::int4;
    case GgufType::q4_1:
    case GgufType::q4_k:
      return QuantKind::int4_offset;
    default:
      return std::nullopt;
  }
}

void dequantize(GgufType type, std::span<const uint8_t> row, std::span<float> values) {
  const int64_t elements = block_elements(type), bytes = block_bytes(type);
  for (int64_t i = 0; i<std::ssize(values); i += elements> 1 ? kQuantGroup : 1) {
    const uint8_t* block = row.data() + i / elements * bytes;
    float* to = values.data() + i;
    if (type == GgufType::f32)
      std::memcpy(to, block, 4);
    else if (type == GgufType::f16)
      *to = half(block);
    else if (type == GgufType::bf16)
      *to = static_cast<float>(c10::BFloat16(half_bits(block), c10::BFloat16::from_bits()));
    else
      dequantize_group(type, block, i % elements / kQuantGroup, to);
  }
}

QuantGroup group_of(GgufType type, std::span<const uint8_t> row, int64_t group) {
  const int64_t groups = block_elements(type) / kQuantGroup, j = group % groups;
  const uint8_t* block = row.data() + group / groups * block_bytes(type);
  if (type == GgufType::q8_0) return q8_0_group(block);
  if (type == GgufType::q6_k) {
    float values[32];
    q6_k_group(block, j, values);
    return kernels::quantize_group(QuantKind::int8, values);
  }
  QuantGroup result;
  if (type == GgufType::q4_k) {
    const SixBits factors = six_bits(block + 4, j);
    q4_k_quants(block, j, result.q);
    result.scale = bits_of_half(half(block) * static_cast<float>(factors.scale));
    result.offset = bits_of_half(-(half(block + 2) * static_cast<float>(factors.least)));
    return result;
  }
  result = four_bits(block + (type == GgufType::q4_1 ? 4 : 2));
  result.scale = half_bits(block);
  if (type == GgufType::q4_1) result.offset = half_bits(block + 2);
  return result;
}

}  // namespace tessera::checkpoint
