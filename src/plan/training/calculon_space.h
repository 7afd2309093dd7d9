// The space of the Calculon planner (Isaev et al., SC 2023), with two networks and a second tier of memory, in
// the terms of our model: `--space calculon`. Its switches beyond a layout, and what they do here:
//
//   sends           whole: each tensor-parallel rank sends the whole activation to the next stage; scattered:
//   its
//                   part, gathered on the other side beside computation, as Megatron does.
//   keep_gathered   (sequence parallelism) inputs of products stay gathered from forward to backward: two more
//                   activations a layer, less 1/tp. Gathering again runs beside the gradient product and is
//                   hidden, so keeping saves no time.
//   overlap_dp      gradients travel beside backward, parameters beside forward; else after and before them.
//   tp_overlap      tensor-parallel communication in tp tiles beside its product. ring: leaves what a named
//                   overlap leaves exposed (step_time.h); pipe: its first tile waits besides; none: as the
//                   software generation hides it.
//   offload         weights, activations, optimizer states live in the host's memory; two layers of each stay
//   on
//                   the device. Forward streams weights in and activations out at once, backward both in; what
//                   takes longer than the stage's own time is waited for. Optimizer states come and go once a
//                   step, beside one backward.
//   networks        one per axis: the innermost tier, which must hold all axes that use it, or the tiers
//   beyond.
//
// Recomputation is none, core attention or full. The batch is the largest multiple of dp within the limit, so
// layouts rank by seconds per sample. Threads: const, reentrant.
#pragma once

#include <string>
#include <vector>

#include "plan/training/gpu_search.h"

namespace tessera::plan {

enum class TpOverlap { none, ring, pipe };

struct CalculonSwitches {
  bool scattered_sends = true, keep_gathered = false, overlap_dp = true;
  TpOverlap tp_overlap = TpOverlap::none;
  bool offload_weights = false, offload_activations = false, offload_optimizer = false;
  bool tp_outer = false, pp_outer = false, dp_outer = false;  // network beyond the innermost tier
  bool operator==(const CalculonSwitches&) const = default;
};
std::string to_string(const CalculonSwitches& switches);

// All candidates with equal layers: tp, micro_batch, recompute, sequence_parallel.
struct CalculonGroup {
  TrainingLayout layers;
};
std::vector<CalculonGroup> calculon_groups(const GpuPlanRequest& request);
// Of a group: every depth, interleaving and sharding; and the sequences of a step with `dp` replicas.
std::vector<TrainingLayout> calculon_layouts(const GpuPlanRequest& request, const CalculonGroup& group);
int64_t calculon_batch(const GpuPlanRequest& request, int64_t dp);

// The switches that Calculon tries for a layout. `undominated`: only those that no other of equal or less
// memory and time replaces for every model and cluster: scattered sends, inputs gathered again, both overlaps
// (ring). REQUIRES for that: contention <= 2 and dp_exposed <= 1. The rest is counted, not listed.
std::vector<CalculonSwitches> calculon_switches(const TrainingLayout& layout, bool undominated);
int64_t count_switches(const TrainingLayout& layout);

}  // namespace tessera::plan
