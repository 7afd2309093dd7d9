// How long one kernel takes on a GPU or TPU, from shape, format and the few constants of Efficiencies:
// surfaces, not tables, so that a device known only by its spec sheet can be asked.
//
// Products: tiles of a small menu are spread over the multiprocessors in waves; each tile pays a fixed prologue
// and epilogue, worth `tile_overhead_k` steps of its inner loop; operands and result pass through memory once.
// The menu entry and the split of k that finish first are taken, as the libraries' heuristics do.
// Attention: flash kernels; rate falls with the share of tiles that the mask cuts, with short heads and with
// sequences that do not fill the device; decoding reads its keys and values once.
// Everything else is a pass over memory. All times are of the device alone; issuing kernels from the host is
// host_issue_s per kernel, to be compared by the caller (max of the two streams).
//
// Sources of the shape of the curves: DeepGEMM's published table (tile overhead), FlashAttention 2 and 3
// figures (short sequences, head sizes); see docs/plan_gpus.md for the fit. Threads: const, reentrant.
#pragma once

#include <cstdint>

#include "plan/hardware/gpu_cluster.h"

namespace tessera::plan {

// out[m, n] (+)= a[m, k] b[k, n].
struct GemmShape {
  double m = 1, n = 1, k = 1;
  MathFormat format = MathFormat::bf16;
  double output_bytes = 2;   // per element written
  bool accumulates = false;  // reads what it adds to: weight gradients into a float32 buffer
};

// `groups` products of equal weights' shape [n, k] whose rows m add up to `rows`, evenly:
// experts. Scale the time by the imbalance of the fullest rank where it matters.
struct GroupedGemmShape {
  double groups = 1, rows = 1, n = 1, k = 1;
  MathFormat format = MathFormat::bf16;
  double output_bytes = 2;
  bool accumulates = false;  // the weight gradient: out[n, k] per group, inner length rows / groups
};

struct AttentionShape {
  double batch = 1, heads = 1, kv_heads = 1;
  double q_len = 1, kv_len = 1;  // queries are the last q_len of kv_len positions
  double head_dim = 128, v_head_dim = 128;
  bool causal = true;
  double window = 0;       // positions that a query sees, 0: all
  bool backward = false;   // else forward
  double kv_bytes = 2;     // per stored element; 1: quantised cache
  double rate_factor = 1;  // of an older or newer kernel generation than the device's usual one
};

class Kernels {
 public:
  explicit Kernels(const GpuCluster& cluster) : device_(cluster.device), efficiency_(cluster.efficiency) {}

  double gemm_s(const GemmShape& shape) const;
  double grouped_gemm_s(const GroupedGemmShape& shape) const;
  // Visible pairs of query and key of one head: q * kv, less what the mask hides.
  static double attention_pairs(const AttentionShape& shape);
  double attention_s(const AttentionShape& shape) const;
  // One pass that reads and writes `bytes` in all, as `kernels` kernels.
  double memory_s(double bytes, double kernels = 1) const;

  // Shortest time of any kernel on the device, and of issuing one from the host.
  static constexpr double kernel_floor_s = 2.5e-6;
  static constexpr double host_issue_s = 6e-6;

  const Device& device() const { return device_; }
  double gemm_efficiency(MathFormat format) const;

 private:
  double tiled_s(double m, double n, double k, double groups, MathFormat format) const;

  Device device_;
  Efficiencies efficiency_;
};

}  // namespace tessera::plan
