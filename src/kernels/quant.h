// Weights in few bits. A served model reads every weight once for each step, so its speed at small batches is
// that of memory: weights of 8 or 4 bits are read two to four times faster than bf16.
//
// A weight is cut along k in groups of 32. A group of a row holds small integers and one or two half-precision
// factors:
//   int8         w = (q - 128) * scale, q in [0, 255]     8.5 bits a weight; GGUF's Q8_0 without loss
//   int4         w = (q - 8) * scale,   q in [0, 15]      4.5 bits; GGUF's Q4_0 without loss
//   int4_offset  w = q * scale + offset, q in [0, 15]     5 bits; Q4_K
//   int4_zero    w = (q + offset) * scale, q in [0, 15]   5 bits; offset is a whole number: AWQ, GPTQ without
//   loss
// Activations are rounded to int8 per row and group of 32 at the start of a product (scale = largest / 127,
// nearest even); the products inside a group are exact in integers, and groups are added in one chain of
// float32 operations, ascending:
//   acc = fma(float(dot), scale_w * scale_a, acc), and for int4_offset acc = fma(offset, scale_a *
//   float(sum_a), acc), for int4_zero the same with offset * scale_w
//
// Bits: a result depends on its own row and column alone: not on the rows beside it, on threads, or on the
// instruction set. Where k is cut in blocks (the sums that tensor parallelism may cut), each block is one
// chain, and the blocks are added by a binary tree. Threads: as kernels.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

namespace tessera::kernels {

enum class QuantKind : uint8_t { int8, int4, int4_offset, int4_zero };
const char* to_string(QuantKind kind);

inline constexpr int64_t kQuantGroup = 32;  // of k, that share a factor
inline constexpr int64_t kQuantPanel = 16;  // rows of the weight that lie together

// A weight [n, k] and how its bytes lie: panels of 16 rows; in each, one tile for each block of k; in each tile
// first the integers of all groups, then the scales of all groups, then the offsets. A group's 16 x 32 integers
// are ordered as [k / 4][row][4]; with 4 bits, k / 4 in [0, 4) is the lower half of the bytes and [4, 8) the
// upper. Rows past n and k past the end of a block have the value zero.
struct QuantShape {
  QuantKind kind = QuantKind::int8;
  int64_t n = 0, k = 0, blocks = 1;  // REQUIRES: blocks divides k

  int64_t panels() const { return (n + kQuantPanel - 1) / kQuantPanel; }
  int64_t block_groups() const { return (k / blocks + kQuantGroup - 1) / kQuantGroup; }
  int64_t group_bytes() const { return kind == QuantKind::int8 ? 512 : 256; }
  int64_t tile_bytes() const;  // a multiple of 64
  int64_t bytes() const { return panels() * blocks * tile_bytes(); }
};

// One group of one row: what a quantising format stores of it.
struct QuantGroup {
  uint8_t q[kQuantGroup] = {};
  uint16_t scale = 0, offset = 0;  // bits of IEEE half precision
};
// The group nearest to 32 values: scale = the value of largest size / 127, or / -8 (as GGUF's Q8_0 and Q4_0
// take it); int4_offset and int4_zero span from the least to the largest value.
QuantGroup quantize_group(QuantKind kind, std::span<const float> values);
void dequantize_group(QuantKind kind, const QuantGroup& group, std::span<float> values);

// Access to single groups of packed bytes; row in [0, n), group in [0, block_groups()) of a block. Groups may
// be written from several threads when their panels differ.
void set_group(const QuantShape& shape, std::span<uint8_t> bytes, int64_t row, int64_t block, int64_t group,
               const QuantGroup& value);
QuantGroup get_group(const QuantShape& shape, std::span<const uint8_t> bytes, int64_t row, int64_t block,
                     int64_t group);

// A packed weight, or whole panels and blocks of one. Holds the bytes alive; copies are views.
class QuantWeight {
 public:
  QuantWeight() = default;
  // REQUIRES: `bytes` is a uint8 tensor of shape.bytes() elements, aligned to 64 bytes.
  QuantWeight(const QuantShape& shape, at::Tensor bytes);

  QuantKind kind() const { return shape_.kind; }
  int64_t n() const { return rows_; }
  int64_t k() const { return shape_.k / shape_.blocks * blocks_; }
  int64_t blocks() const { return blocks_; }
  int64_t block_groups() const { return shape_.block_groups(); }
  const uint8_t* tile(int64_t panel, int64_t block) const {
    return data_ + ((first_panel_ + panel) * shape_.blocks + first_block_ + block) * shape_.tile_bytes();
  }

  // All panels. REQUIRES: all blocks of the shape.
  std::span<const uint8_t> bytes() const;

  // REQUIRES: first is a multiple of 16.
  QuantWeight rows(int64_t first, int64_t count) const;
  QuantWeight block_range(int64_t first, int64_t count) const;
  QuantWeight any_rows(int64_t first, int64_t count) const;  // rows(), or a copy where no panel begins there

  QuantGroup group(int64_t row, int64_t block, int64_t group) const;
  void dequantize_row(int64_t row, std::span<float> values) const;  // k() of them

 private:
  QuantShape shape_;
  int64_t first_panel_ = 0, rows_ = 0, first_block_ = 0, blocks_ = 0;
  at::Tensor bytes_;
  const uint8_t* data_ = nullptr;
};

// Quantises a float32 or bf16 weight [n, k].
QuantWeight quantize(QuantKind kind, const at::Tensor& weight_NK, int64_t blocks = 1);

// out[M, sum of n] = a[M, k] * weight^T, for several weights of equal k and blocks side by side (Q, K and V).
// a: float32 or bf16; out: float32 or bf16.
void gemm_quant(const at::Tensor& a, std::span<const QuantWeight> weights, at::Tensor& out);

struct QuantFfn {
  QuantWeight gate, up, down;
};
// Rows sorted by expert: rows [first[e], first[e + 1]) go through expert e: out = down(silu(gate) * up),
// float32 or bf16 [N, D]. The values between gate and down stay float32 until they are rounded to int8. All
// experts run at once: threads take (expert, columns). One expert is a dense FFN. An out [blocks, N, D] gets
// each block of `down` apart, before the tree.
void ffn_quant(const at::Tensor& rows, std::span<const int64_t> first, std::span<const QuantFfn> experts,
               at::Tensor& out);

// out[t] = row `token - first` of the weight, else zeros, as kernels::embedding.
void embedding_quant(const QuantWeight& weight, const at::Tensor& tokens, int64_t first, at::Tensor& out);

// "avx512vnni", "avx2" or "generic": what the products in few bits use.
const char* quant_isa();

}  // namespace tessera::kernels
