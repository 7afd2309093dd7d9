#include "plan/recsys/dense.h"

#include <algorithm>
#include <cmath>

namespace tessera::plan::recsys {

// Ring within a host over its links, ring over hosts over their networks; hidden behind the backward products.
DenseTime dense_time(const Work& work, const Pools& pools, const Engine& engine, const Layout& layout) {
  const Pool& pool = pools.trainers;
  double products = 3 * dense_flops_per_sample(work.model) * layout.batch / pool.flops_per_s;
  double bytes = 4 * dense_parameters(work.model);
  double inside = std::min(layout.trainers, pool.devices_per_host);
  double hosts = std::ceil(layout.trainers / pool.devices_per_host);
  double reduce = 2 * (inside - 1) / inside * bytes / pool.link_bytes_per_s +
                  2 * (hosts - 1) / hosts * bytes / (pool.network_bytes_per_s * engine.network_share);
  DenseTime time;
  time.compute = products + layout.batch * engine.trainer_sample_s + engine.trainer_step_s;
  if (layout.dense_sync) time.exposed = std::max(0.0, reduce - products * 2 / 3);
  return time;
}

TrainerMemory dense_memory(const Work& work, const Layout& layout, const BatchIds& ids) {
  constexpr double kStates = 4 + 4 + 8, kFloat = 4;
  // One batch is worked on while the next arrives.
  double at_hand = std::min(2.0, layout.staleness);
  TrainerMemory memory;
  memory.dense = kStates * dense_parameters(work.model);
  memory.activations = 2 * kFloat * layout.batch * dense_activations(work.model);
  memory.vectors = 2 * at_hand * ids.pooled_elements * std::max(layout.wire_bytes, kFloat);
  return memory;
}

}  // namespace tessera::plan::recsys
