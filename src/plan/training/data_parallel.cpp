#include "plan/training/data_parallel.h"

#include <algorithm>

#include "core/numbers.h"
#include "plan/kernels/kernels.h"

namespace tessera::plan {
namespace {

// Ranks of one tensor-parallel position that share a dense weight, and those that share an expert.
RankGroup dense_group(const TrainingLayout& layout) {
  return {.ranks = layout.dp * layout.fsdp * layout.cp, .stride = layout.tp};
}
RankGroup expert_group(const TrainingLayout& layout) {
  return {.ranks = layout.expert_replicas(), .stride = layout.ep * layout.expert_tp()};
}

GradientExchange exchange(const TrainingSetup& setup, const GpuCluster& cluster, RankGroup group,
                          double parameters) {
  GradientExchange time;
  double gradients = parameters * real(setup.options.gradient_bytes);
  if (setup.layout.sharding == Sharding::none) {
    time.reduce = collective_s(cluster, CollectiveKind::all_reduce, group, gradients);
  } else {
    time.reduce = collective_s(cluster, CollectiveKind::reduce_scatter, group, gradients);
    time.gather = collective_s(cluster, CollectiveKind::all_gather, group, 2 * parameters);
  }
  return time;
}

RankGroup sharded_group(const TrainingLayout& layout) {
  int64_t cp = layout.shard_over_cp ? layout.cp : 1;
  return {.ranks = layout.fsdp * cp, .stride = layout.tp};
}

}  // namespace

GradientExchange gradient_exchange(const TrainingSetup& setup, const GpuCluster& cluster,
                                   const RankParameters& parameters) {
  const TrainingLayout& layout = setup.layout;
  if (layout.sharding == Sharding::parameters) {
    // Replicas of sharded parameters add their shards.
    double shard = parameters.dense / real(layout.fsdp) * real(setup.options.gradient_bytes);
    RankGroup across{.ranks = layout.dp, .stride = layout.tp * layout.cp * layout.fsdp};
    return {.reduce = collective_s(cluster, CollectiveKind::all_reduce, across, shard)};
  }
  GradientExchange dense = exchange(setup, cluster, dense_group(layout), parameters.dense);
  GradientExchange experts = exchange(setup, cluster, expert_group(layout), parameters.experts);
  return {dense.reduce + experts.reduce, dense.gather + experts.gather};
}

ShardedLayerExchange sharded_layer_exchange(const TrainingSetup& setup, const GpuCluster& cluster,
                                            const RankParameters& layer) {
  const TrainingLayout& layout = setup.layout;
  if (layout.sharding != Sharding::parameters) return {};
  RankGroup group = sharded_group(layout);
  double parameters = layer.dense + layer.experts;
  double gather = collective_s(cluster, CollectiveKind::all_gather, group, 2 * parameters);
  double scatter = collective_s(cluster, CollectiveKind::reduce_scatter, group,
                                parameters * real(setup.options.gradient_bytes));
  if (layout.keep_gathered) gather /= real(std::max<int64_t>(1, setup.micro_batches()));
  return {gather, (layout.keep_gathered ? 0 : gather) + scatter};
}

double optimizer_s(const TrainingSetup& setup, const GpuCluster& cluster, const RankParameters& parameters) {
  const TrainingLayout& layout = setup.layout;
  const TrainingOptions& options = setup.options;
  double own = parameters.dense / real(layout.optimizer_shards()) +
               parameters.experts / real(layout.expert_optimizer_shards());
  // Norm and unscaling read the gradient twice; the update reads gradient, master and moments and writes the
  // last two and the working copy.
  double state = real(options.master_bytes + 2 * options.moment_bytes);
  double bytes = own * (3 * real(options.gradient_bytes) + 2 * state + 2);
  // The accumulated gradient is set to zero whole.
  double whole = layout.sharding == Sharding::parameters ? 0 : parameters.dense + parameters.experts;
  bytes += whole * real(options.gradient_bytes);
  Kernels kernels(cluster);
  double seconds = kernels.memory_s(bytes, 50);
  if (layout.offload_optimizer && cluster.device.host_bytes_per_s > 0)
    seconds += own * (real(options.gradient_bytes) + 2) / cluster.device.host_bytes_per_s;
  return seconds;
}

}  // namespace tessera::plan
