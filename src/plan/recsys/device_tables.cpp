#include "plan/recsys/device_tables.h"

#include <algorithm>
#include <cmath>

namespace tessera::plan::recsys {
namespace {

constexpr double kTableIdBytes = 8, kFloat = 4;

// Elements that one device's batch brings home.
double vector_elements(const Work& work, const Layout& layout) {
  double sum = 0;
  for (const EmbeddingTable& table : work.model.tables) {
    double owners = layout.sharding == Sharding::rows ? std::min(layout.trainers, table.pooling) : 1;
    sum += layout.batch * std::max(1.0, owners) * static_cast<double>(table.dim);
  }
  return sum;
}

double looked_up_elements(const Work& work, double batch) {
  return batch * embedding_bytes_read(work.model, 1);
}

}  // namespace

DeviceTablesTime device_tables_time(const Work& work, const Pools& pools, const Engine& engine,
                                    const Layout& layout, const BatchIds& ids, double busiest) {
  const Pool& pool = pools.trainers;
  double n = layout.trainers, load = n * busiest;  // of one device's batch, what the busiest works on
  double mean_dim = ids.row_elements / ids.distinct;
  double state = work.state_bytes_per_row >= 0 ? work.state_bytes_per_row : kFloat * mean_dim;
  double read = looked_up_elements(work, layout.batch) * work.element_bytes;
  double update = ids.distinct * 2 * (mean_dim * work.element_bytes + state) + ids.pooled_elements * kFloat;
  DeviceTablesTime time;
  time.look_up = load * (read + update) / (pool.device_bytes_per_s * engine.device_gather_share);

  double vectors = vector_elements(work, layout) * layout.wire_bytes,
         sent = ids.ids * kTableIdBytes + 2 * vectors;
  double inside = std::min(n, pool.devices_per_host), hosts = std::ceil(n / pool.devices_per_host);
  double within = (inside - 1) / n, across = (n - inside) / n;
  double network = pool.network_bytes_per_s * engine.network_share;
  double most = std::max(1.0, load);  // the busiest owner sends most
  time.exchange = most * sent * within / pool.link_bytes_per_s;
  if (hosts > 1) time.exchange += most * sent * across * inside / network;
  if (n > 1) time.exchange += 3 * engine.message_s;
  return time;
}

}  // namespace tessera::plan::recsys
