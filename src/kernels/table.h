// What one instruction set offers: raw loops over pointers, compiled once per ISA from the same bodies in body/
// and chosen at run time. The bodies do the same operations per element, so every table gives the same bits.
// This header stays free of torch and of inline functions of the standard library: a function that the linker
// takes from a file compiled for AVX-512 would stop on a smaller processor.
#pragma once

#include <cstdint>

namespace tessera::kernels {

enum class Type : uint8_t { f32, bf16 };

// Rows of one matrix: element (r, c) lies at data + r * stride + c, counted in elements of the type.
struct Source {
  const void* data = nullptr;
  Type type = Type::f32;
  int64_t stride = 0;
};
struct Target {
  void* data = nullptr;
  Type type = Type::f32;
  int64_t stride = 0;
};

// c = start + a * b for [rows, columns], k ascending in one chain of fma per element.
//
// A product of pairs reads words: 32 bits that hold two bf16 of successive k, the earlier one in the lower
// half. Each word takes two steps of the chain, the later k first, and subnormal numbers are zeros, in and out:
// that is what the instruction of AVX512_BF16 does, and the other levels do it step by step.
struct Product {
  const float* a;  // element (r, k) at a + r / row_tile * a_tile + r % row_tile * a_row + k * a_k
  int64_t a_tile, a_row, a_k;
  const float* b;  // element (k, n) at b + n / 16 * b_panel + n % 16 + k * b_k; a panel is 16 columns wide,
  int64_t b_panel, b_k;      // readable to its end even where `columns` is not a multiple of 16
  int64_t rows, columns, k;  // k counts words in a product of pairs
  const float* start;        // null: +0; may be c
  int64_t start_row;
  Target c;  // bf16: rounded to nearest even
};

inline constexpr int64_t kLanes = 16;
// One step of attention for a tile of query rows against keys [first_key, first_key + keys); see
// body/attention.h.
struct AttentionStep {
  const float* q;  // [rows, width]
  const float* keys_transposed;
  const float* values;  // [keys, width]
  int64_t rows, head_dim, width, first_key, keys;
  const int32_t* begin;  // [rows] first visible key
  const int32_t* end;    // [rows] one past the last visible key
  float scale;
  float* scores;  // [rows, kKeyBlock]
  float* out;     // [rows, width]
  float* max;     // [rows]
  float* sum;     // [rows, 16]
};
inline constexpr int64_t kKeyBlock = 128;  // blocks are aligned to absolute key positions: part of the bits
inline constexpr int64_t kQueryTile = 48;

struct AttentionBackwardStep {
  AttentionStep forward;           // out, max and sum unused
  const float* dout;               // [rows, width]
  const float* values_transposed;  // as keys_transposed
  const float* keys;               // [keys, width]
  const float* lse;                // [rows]
  const float* delta;              // [rows] dot(dout, out)
  float* dscores;                  // [rows, kKeyBlock]
  float *dq, *dk, *dv;             // dq [rows, width]; dk, dv [keys, width]
};

// The same against pages, which lie apart: panels of 16 keys and of 16 values, in steps of a float or of two
// bf16 in a word; see kv_pages.h and body/paged.h.
struct PagedStep {
  const float* q;                 // [rows, key_steps]
  const float* const* keys_of;    // of each 16 keys: [key_steps][16]
  const float* const* values_of;  // of each 16 keys: [16 or 8][width]
  const float* key_scale;         // [keys], filled up to 16; null: ones
  const float* value_scale;
  int64_t rows, key_steps, width, first_key, keys;
  const int32_t* begin;  // [rows] first visible key
  const int32_t* end;    // [rows] one past the last visible key
  float scale;
  float* scores;   // [rows, kKeyBlock]
  float* weights;  // [rows, kKeyBlock / 2] words; unused by floats
  float *out, *max, *sum;
};

struct AdamWStep {
  float learning_rate, beta1, beta2, epsilon, decay, gradient_scale, step_size, root_correction;
};

struct Table {
  const char* name;
  int64_t row_tile;
  // ---- products ----
  void (*product)(const Product&);
  void (*product_pairs)(const Product&);
  // Operands as products read them: floats, or words where the source is bf16 (an odd k ends with half a word
  // of +0).
  void (*pack_transposed)(const Source& b, int64_t n, int64_t k, float* panels);  // b[n, k] -> [n / 16][k][16]
  void (*pack_rows)(const Source& b, int64_t k, int64_t n, float* panels);        // b[k, n] -> [n / 16][k][16]
  void (*pack_columns)(const Source& a, int64_t k, int64_t m, float* tiles);  // -> [m / row_tile][k][row_tile]
  // ---- rows of `width` elements ----
  void (*convert)(const Source&, const Target&, int64_t rows, int64_t width);
  void (*add)(const Source&, const Source&, const Target&, int64_t rows, int64_t width);
  void (*add_scaled)(const Source& x, float weight, float* into, int64_t width);  // into = fma(weight, x, into)
  void (*scale)(const Source& x, float weight, const Target&, int64_t width);
  void (*divide)(const Source& x, float by, const Target&, int64_t width);
  float (*lane_sum)(const float* lanes16);
  float (*dot)(const Source& x, const Source& y, int64_t width);
  float (*rms_norm)(const Source& x, const Source& weight, float eps, const Target& y, int64_t width);
  void (*rms_norm_dx)(const Source& dy, const Source& x, const Source& weight, float rstd, const Target& dx,
                      int64_t width);
  void (*rms_norm_dweight)(const Source& dy, const Source& x, float rstd, float* dweight, int64_t width);
  void (*rope)(const Target& x, const float* cos, const float* sin, bool inverse, int64_t heads, int64_t half);
  void (*silu_mul)(const Source& gate, const Source& up, const Target& out, int64_t width);
  void (*silu_mul_backward)(const Source& dout, const Source& gate, const Source& up, const Target& dgate,
                            const Target& dup, int64_t width);
  // ---- rows of layers that are served only: served_layers.h ----
  float (*layer_norm)(const Source& x, const Source& weight, const Source& bias, float eps, const Target& y,
                      int64_t width);  // 1 / standard deviation
  void (*sigmoid)(const float* x, float* y, int64_t width);
  void (*swiglu_clamped)(const Source& gate, const Source& up, float alpha, float limit, const Target& out,
                         int64_t width);
  void (*gelu_tanh)(const Source& x, const Target& y, int64_t width);
  void (*gelu_erf)(const Source& x, const Target& y, int64_t width);
  // ---- losses, optimizer ----
  float (*row_max)(const float* x, int64_t width);
  float (*row_sum_exp)(const float* x, float max, int64_t width);
  void (*softmax_gradient)(float* x, float max, float sum, float scale, int64_t width);  // exp(x-max)/sum*scale
  void (*softmax)(const float* x, float* y, int64_t width);
  void (*adamw)(const AdamWStep&, const Source& gradient, float* master, float* m, float* v, int64_t width);
  // ---- attention ----
  void (*attention)(const AttentionStep&);
  void (*attention_backward)(const AttentionBackwardStep&);
  void (*paged_floats)(const PagedStep&);
  void (*paged_pairs)(const PagedStep&);
  // out[width] / the sum of the 16 lanes; zeros are +0.
  void (*paged_finish)(const float* out, const float* lanes16, const Target& to, int64_t width);
  // 16 earlier and 16 later bytes of each step to words of bf16.
  void (*words_of_int8)(const uint8_t* from, int64_t steps16, float* words);
  void (*words_of_fp8)(const uint8_t* from, int64_t steps16, float* words);
};

const Table& table();  // the best one for this processor, or the one that TESSERA_ISA names
const Table* table_named(const char* name);  // null when unknown or not usable on this processor

extern const Table generic_table, avx2_table, avx512_table, avx512bf16_table;

}  // namespace tessera::kernels
