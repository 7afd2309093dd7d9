#include "plan/kernels/kernels.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace tessera::plan {
namespace {

// Tiles that GEMM libraries choose from; small ones use the multipliers less well.
struct Tile {
  double m, n, efficiency;
};
constexpr std::array<Tile, 6> kTiles = {
    {{256, 128, 1.0}, {128, 256, 1.0}, {128, 128, 0.96}, {128, 64, 0.85}, {64, 128, 0.85}, {64, 64, 0.7}}};
constexpr std::array<double, 5> kSplits = {1, 2, 4, 8, 16};

// Steps of the inner loop that prologue and epilogue of one tile cost. In steps of fp8: DeepGEMM on H800
// reaches 590, 990, 1025, 1304, 1358 TFLOP/s at k = 512, 1536, 2048, 7168, 16384, which is 1,430 k / (k + 700).
// A tile's epilogue takes as long in any format, so steps scale with the rate.
constexpr double kTileOverheadFp8 = 700;

double tile_overhead_k(MathFormat format) {
  switch (format) {
    case MathFormat::fp4:
      return 2 * kTileOverheadFp8;
    case MathFormat::fp8:
      return kTileOverheadFp8;
    case MathFormat::bf16:
      return kTileOverheadFp8 / 2;
    default:
      return kTileOverheadFp8 / 4;
  }
}

// The last wave is rarely full, but persistent kernels and uneven clocks hide half of that.
double waves(double tiles, double multiprocessors) {
  double exact = tiles / multiprocessors;
  return 0.5 * (std::ceil(exact) + std::max(exact, 1.0));
}

// Positions beyond the visible ones that a flash kernel works on: tiles cut by the diagonal, and the start of
// each block of queries. FlashAttention 2 and 3, forward and backward, head sizes 64 to 256: rates follow
// s / (s + 520) with a causal mask and s / (s + 180) without one, within 4 %.
constexpr double kCausalExtra = 520, kFullExtra = 180;
// Rate against head size: d / (d + 56), from the same figures.
constexpr double kHeadExtra = 56;

double head_factor(double head_dim) {
  return head_dim / (head_dim + kHeadExtra) * (128 + kHeadExtra) / 128;
}

}  // namespace

double Kernels::gemm_efficiency(MathFormat format) const {
  if (format == MathFormat::fp4 && device_.peak_fp4 > 0) return efficiency_.gemm_fp4;
  bool narrow = format == MathFormat::fp4 || format == MathFormat::fp8;
  return narrow && device_.peak_fp8 > 0 ? efficiency_.gemm_fp8 : efficiency_.gemm_bf16;
}

double Kernels::tiled_s(double m, double n, double k, double groups, MathFormat format) const {
  double per_unit = device_.peak(format) * gemm_efficiency(format) / device_.multiprocessors;
  double best = 1e300;
  for (const Tile& tile : kTiles) {
    double tiles = groups * std::ceil(m / tile.m) * std::ceil(n / tile.n);
    double step_s = 2 * tile.m * tile.n / (per_unit * tile.efficiency);
    for (double split : kSplits) {
      if (split > 1 && k / split < 512) break;
      double steps = k / split + tile_overhead_k(format);
      best = std::min(best, waves(tiles * split, device_.multiprocessors) * steps * step_s);
    }
  }
  return best;
}

double Kernels::gemm_s(const GemmShape& shape) const {
  double input = bytes_per_element(shape.format);
  double operands = (shape.m * shape.k + shape.k * shape.n) * input;
  double result = shape.m * shape.n * shape.output_bytes;
  double bandwidth = device_.memory_bytes_per_s * efficiency_.memory;
  double seconds =
      std::max(tiled_s(shape.m, shape.n, shape.k, 1, shape.format), (operands + result) / bandwidth);
  // The epilogue of a 2-byte result is part of the tile overhead; more than that waits for memory.
  double beyond = result * (shape.accumulates ? 2 : 1) - shape.m * shape.n * 2;
  return seconds + std::max(0.0, beyond) / bandwidth + kernel_floor_s;
}

double Kernels::grouped_gemm_s(const GroupedGemmShape& shape) const {
  double groups = std::max(1.0, shape.groups), rows = shape.rows / groups;
  double input = bytes_per_element(shape.format);
  double bandwidth = device_.memory_bytes_per_s * efficiency_.memory;
  double weights = groups * shape.n * shape.k;
  if (shape.accumulates) {
    double bytes = shape.rows * (shape.n + shape.k) * input + 2 * weights * shape.output_bytes;
    double math = tiled_s(shape.n, shape.k, rows, groups, shape.format);
    return std::max(math, bytes / bandwidth) + weights * (2 * shape.output_bytes - 2) / bandwidth +
           kernel_floor_s;
  }
  double bytes = shape.rows * (shape.k * input + shape.n * shape.output_bytes) + weights * input;
  return std::max(tiled_s(rows, shape.n, shape.k, groups, shape.format), bytes / bandwidth) + kernel_floor_s;
}

double Kernels::attention_pairs(const AttentionShape& shape) {
  double seen = shape.kv_len;
  if (!shape.causal) return shape.q_len * (shape.window > 0 ? std::min(seen, shape.window) : seen);
  double mean = shape.kv_len - (shape.q_len - 1) / 2;
  if (shape.window <= 0 || shape.window >= shape.kv_len) return shape.q_len * mean;
  // The first queries see fewer than a window, if the cache before them is shorter.
  double before = shape.kv_len - shape.q_len;
  double ramp = std::clamp(shape.window - before, 0.0, shape.q_len);
  return shape.q_len * shape.window - ramp * ramp / 2;
}

double Kernels::attention_s(const AttentionShape& shape) const {
  double pairs = shape.batch * shape.heads * attention_pairs(shape);
  double share = shape.backward ? efficiency_.attention_backward : efficiency_.attention_forward;
  double rate = device_.peak_bf16 * share * head_factor(shape.head_dim) * shape.rate_factor;
  // Backward multiplies five times where forward does twice.
  double flops = 2 * pairs * (shape.head_dim + shape.v_head_dim) * (shape.backward ? 2.5 : 1);
  double mean_seen = pairs / (shape.batch * shape.heads * shape.q_len);
  double extra = shape.causal ? kCausalExtra / 2 : kFullExtra;
  bool decoding = shape.q_len < 64;
  double math = flops / rate * (decoding ? 1 : 1 + extra / std::max(mean_seen, 1.0));
  // Few heads and rows leave multiprocessors idle; decoding kernels split the keys instead.
  double blocks = shape.batch * shape.heads * std::ceil(shape.q_len / 128);
  if (!decoding && blocks < device_.multiprocessors) math *= device_.multiprocessors / blocks;
  double kept = shape.window > 0 ? std::min(shape.kv_len, shape.window + shape.q_len) : shape.kv_len;
  double cache = shape.batch * shape.kv_heads * kept * (shape.head_dim + shape.v_head_dim) * shape.kv_bytes;
  double rows = shape.batch * shape.heads * shape.q_len * (shape.head_dim + shape.v_head_dim) * 2;
  double bytes = (cache + rows) * (shape.backward ? 2 : 1);
  return std::max(math, bytes / (device_.memory_bytes_per_s * efficiency_.memory)) + kernel_floor_s;
}

double Kernels::memory_s(double bytes, double kernels) const {
  return bytes / (device_.memory_bytes_per_s * efficiency_.memory) + kernels * kernel_floor_s;
}

}  // namespace tessera::plan
