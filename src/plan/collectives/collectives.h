// How long a collective takes among devices of a cluster: for each algorithm that a library would consider, its
// latency and the time of its bytes through the slowest tier it crosses; the fastest is taken, as NCCL's tuner
// does. Formulas: Thakur et al. 2005 (ring, tree), hierarchical all-reduce, in-network reduction (NVLS, SHARP)
// where the tier has it.
//
// A group is `ranks` devices, `stride` apart. With stride 1 it fills inner domains first; tensor-parallel
// groups have stride 1, data-parallel ones the product of the inner degrees. Inside a domain each member has
// its own share of the links, and so has every other group: equal groups that run at once do not slow one
// another. `sharers` counts groups of the same kind that use one device's link at once.
//
// Bytes: all-reduce the buffer of a rank; all-gather the result; reduce-scatter the input; all-to-all all that
// a rank sends, its own part included; send the message. Threads: const, reentrant.
#pragma once

#include "plan/hardware/gpu_cluster.h"

namespace tessera::plan {

enum class CollectiveKind { all_reduce, all_gather, reduce_scatter, all_to_all, send };
enum class CollectiveAlgorithm { none, ring, tree, hierarchical, in_network, pairwise };
const char* to_string(CollectiveKind kind);
const char* to_string(CollectiveAlgorithm algorithm);

struct RankGroup {
  int64_t ranks = 1, stride = 1;
  double sharers = 1;
};

struct CollectiveTime {
  double seconds = 0;
  double latency_s = 0;  // part of it that does not depend on the bytes
  CollectiveAlgorithm algorithm = CollectiveAlgorithm::none;
  int64_t tier = 0;  // outermost tier that it crosses, index into GpuCluster::tiers
};

CollectiveTime collective_time(const GpuCluster& cluster, CollectiveKind kind, RankGroup group, double bytes);
inline double collective_s(const GpuCluster& cluster, CollectiveKind kind, RankGroup group, double bytes) {
  return collective_time(cluster, kind, group, bytes).seconds;
}

// ---- the formulas, each of one tier unless said; `rate` in bytes/s, `latency_s` of one step ----
double ring_s(CollectiveKind kind, double ranks, double bytes, double rate, double latency_s);
// All-reduce over a double binary tree: 2 log2(n) steps, all bytes up and down once.
double tree_all_reduce_s(double ranks, double bytes, double rate, double latency_s);
// Reduce-scatter inside, all-reduce of the shards across, all-gather inside.
double hierarchical_all_reduce_s(double inner_ranks, double outer_ranks, double bytes, double inner_rate,
                                 double outer_rate, double inner_latency_s, double outer_latency_s);

// Members that a group has in one domain of tier `tier`.
double members_in_domain(const GpuCluster& cluster, RankGroup group, size_t tier);

}  // namespace tessera::plan
