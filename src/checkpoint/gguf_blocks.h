// Blocks of numbers in a GGUF file: what each type stores, as floats and as the groups of our own products.
//   f32, f16, bf16   one number
//   q8_0             32: scale, int8                                  our int8, without loss
//   q4_0             32: scale, 4 bits less 8                         our int4, without loss
//   q4_1             32: scale, least, 4 bits                         our int4_offset, without loss
//   q4_k             256: eight groups of 32 with scale and least of 6 bits times a common half
//                                                                     our int4_offset; factors rounded to half
//   q6_k             256: sixteen groups of 16, 6 bits                our int8, rounded to its steps
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "core/result.h"
#include "kernels/quant.h"

namespace tessera::checkpoint {

enum class GgufType : uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q8_0 = 8,
  q4_k = 12,
  q6_k = 14,
  bf16 = 30
};

// By its number in a file. Errors: unknown, or not read by us; the message lists what is.
Result<GgufType> gguf_type(uint32_t number);
const char* to_string(GgufType type);
int64_t block_elements(GgufType type);
int64_t block_bytes(GgufType type);

// What the products take it as; none: floats.
std::optional<kernels::QuantKind> quant_kind_of(GgufType type);

// `row` holds values.size() numbers from a block's begin on. REQUIRES: whole blocks.
void dequantize(GgufType type, std::span<const uint8_t> row, std::span<float> values);

// Group `group` of 32 numbers of a row. REQUIRES: quant_kind_of(type).
kernels::QuantGroup group_of(GgufType type, std::span<const uint8_t> row, int64_t group);

}  // namespace tessera::checkpoint
