// What one instruction set offers to products in few bits: see quant.h for the arithmetic and the order of
// bytes. Free of torch and of inline functions of the standard library, as table.h is, for the same reason.
#pragma once

#include <cstdint>

namespace tessera::kernels {

// Rows of activations against one tile of a packed weight: 16 columns, one block of k.
struct QuantTile {
  const uint8_t* weight;
  int64_t groups;
  const int8_t* a;       // [rows, groups * 32], a_row bytes from row to row
  const float* a_scale;  // [rows, groups], a_group_row elements from row to row
  const int32_t* a_sum;
  int64_t rows, a_row, a_group_row;
  float* out;  // [rows, 16]
};

struct QuantTable {
  const char* name;
  void (*tile_int8)(const QuantTile&);
  void (*tile_int4)(const QuantTile&);
  void (*tile_int4_offset)(const QuantTile&);
  void (*tile_int4_zero)(const QuantTile&);
  // One row of `width` floats, in groups of 32, the last one filled up with zeros.
  void (*quantize_row)(const float* x, int64_t width, int8_t* q, float* scale, int32_t* sum);
};

const QuantTable& quant_table();
const QuantTable* quant_table_named(const char* name);  // null when unknown or not usable on this processor

extern const QuantTable generic_quant_table, avx2_quant_table, avx512vnni_quant_table;

}  // namespace tessera::kernels
