// Keys and values of a server, paged, in the order that attention reads them: no copy is made of them in floats
// while tokens are decoded.
//
// A block holds block_tokens tokens of one layer, in one run of bytes, so that who moves blocks (to another
// process, to disk) needs no more than block(). In it one part for each kv head:
//   keys    [tokens / 16][steps][16]: a panel of 16 tokens is what 16 lanes read
//   values  [tokens / 16][steps of 16 tokens][head_dim, filled up to a multiple of 16]
//   scales  int8 and fp8: float32 [tokens] of keys, then [tokens] of values
// A step is a float, or two successive bf16 in one word of 32 bits (of a key: head_dim / 2 steps; of a value: 8
// steps for 16 tokens). int8 and fp8 (E4M3, no infinities) have the steps of bf16 with 16 earlier bytes first,
// then 16 later ones; element = byte * scale, scale = largest of the token's head / 127 or / 448.
//
// What lies behind a sequence's last token is never looked at, except that writing an even token makes the
// odd one beside it zero. Threads: blocks are independent.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace tessera::kernels {

enum class KvType : uint8_t { f32, bf16, int8, fp8 };
const char* to_string(KvType type);  // "float32", "bf16", "int8", "fp8"
std::optional<KvType> kv_type_named(std::string_view name);

struct KvShape {
  KvType type = KvType::f32;
  int64_t block_tokens = 16, heads = 1, head_dim = 1;  // REQUIRES: block_tokens is a multiple of 16
  // > 0: a value is the first `latent` elements of its key, and is not stored beside it: the latent attention
  // (MLA) of DeepSeek-V2, whose keys are a latent vector and a rotated part behind it.
  int64_t latent = 0;

  bool in_bytes() const { return type == KvType::int8 || type == KvType::fp8; }
  int64_t key_steps() const { return type == KvType::f32 ? head_dim : (head_dim + 1) / 2; }
  int64_t value_steps() const { return type == KvType::f32 ? 16 : 8; }  // of 16 tokens
  int64_t value_dim() const { return latent > 0 ? latent : head_dim; }
  int64_t value_width() const { return (value_dim() + 15) / 16 * 16; }
  int64_t step_bytes() const { return in_bytes() ? 2 : 4; }
  // In the part of one head: bytes of 16 keys, of 16 values, where the values begin, and the scales.
  int64_t key_panel_bytes() const { return key_steps() * 16 * step_bytes(); }
  int64_t value_panel_bytes() const { return latent > 0 ? 0 : value_steps() * value_width() * step_bytes(); }
  int64_t values_at() const { return block_tokens / 16 * key_panel_bytes(); }
  int64_t scales_at() const { return values_at() + block_tokens / 16 * value_panel_bytes(); }
  int64_t head_bytes() const { return scales_at() + (in_bytes() ? block_tokens * 8 : 0); }
  int64_t block_bytes() const { return heads * head_bytes(); }
};

class KvPages {
 public:
  KvPages() = default;
  KvPages(const KvShape& shape, int64_t blocks);  // zeros; throws c10::Error when there is no memory

  const KvShape& shape() const { return shape_; }
  int64_t blocks() const { return blocks_; }
  std::span<std::byte> block(int64_t i) const;

 private:
  KvShape shape_;
  int64_t blocks_ = 0;
  at::Tensor bytes_;
};

// Writes k, v [T, heads, head_dim] (float32 or bf16) at slot[t] = block * block_tokens + offset (int64). Tokens
// of a sequence come in ascending order. Latent pages take no v: it may be undefined.
void write_kv(const at::Tensor& k_TKE, const at::Tensor& v_TKE, const at::Tensor& slot_T, KvPages& pages);

// Attention of a server: tokens of several sequences against paged KV. Token t belongs to sequence sequence[t]
// (int32), has absolute position position[t] (int32), and sees positions 0 .. position[t] of its sequence,
// found through block_table [sequences, max_blocks] (int32). q: [T, H, E], out: [T, H, value_dim], bf16 unless
// the pages are float32. An encoder, whose tokens see all of their sequence, gives each the last position.
//
// Bits: keys go in blocks of 128 at absolute positions, scores are chains over head_dim, values chains over
// positions, as in attention(): equal bits for any chunking and any neighbours. Float32 pages give the bits of
// attention() over the whole sequence. Others take the steps of products of bf16 (kernels.h); a weight is
// rounded to bf16 before it meets the values, and scales of keys and values multiply scores and weights.
struct PagedOptions {
  int64_t window = 0;  // positions that a token sees, its own included; 0: all up to its own
  int64_t first = 0;   // positions in front of this one are not seen; REQUIRES: no token is at one
  at::Tensor sinks;  // float32 [H]: a score per head that takes weight and has no value (gpt-oss); or undefined
};
void paged_attention(const at::Tensor& q_THE, const KvPages& pages, const at::Tensor& sequence_T,
                     const at::Tensor& position_T, const at::Tensor& block_table, double scale,
                     at::Tensor& out_THE, const PagedOptions& options = {});

}  // namespace tessera::kernels
