#include "plan/recsys/step.h"

#include <algorithm>
#include <cmath>

#include "core/numbers.h"
#include "plan/recsys/dense.h"
#include "plan/recsys/device_tables.h"

namespace tessera::plan::recsys {
namespace {

constexpr double kIdBytes = 8;

double row_bytes(const Work& work, const EmbeddingTable& table, const Engine& engine) {
  double state = work.state_bytes_per_row >= 0 ? work.state_bytes_per_row : 4 * real(table.dim);
  return (real(table.dim) * work.element_bytes + state + engine.row_overhead_bytes) * work.replicas;
}

// Share of all load that the busiest server carries when whole tables are placed, heaviest first.
double fullest_share(std::vector<double> loads, double servers) {
  std::sort(loads.rbegin(), loads.rend());
  std::vector<double> bins(static_cast<size_t>(servers), 0.0);
  double sum = 0;
  for (double load : loads) *std::min_element(bins.begin(), bins.end()) += load, sum += load;
  return *std::max_element(bins.begin(), bins.end()) / sum;
}

// Of all look-ups, the share of the busiest of `owners`. Hashing spreads n distinct rows over k owners evenly
// but for chance: the fullest has n/k + sqrt(2 ln k n/k).
double busiest_owner(const Layout& layout, const BatchIds& ids, double owners) {
  if (owners <= 1) return 1;
  if (layout.sharding == Sharding::tables) return fullest_share(ids.table_load, owners);
  double mean = layout.trainers * ids.distinct / owners;
  return (1 + std::sqrt(2 * std::log(owners) / std::max(1.0, mean))) / owners;
}

double fullest_bytes(const Layout& layout, const Storage& held, double owners) {
  double even = held.bytes / owners;
  return layout.sharding == Sharding::rows ? even : std::max(even, held.largest_table_bytes);
}

// Names the part that takes longest, and what all hosts of the layout cost.
void finish(const Pools& pools, const Engine& engine, const Layout& layout, const DenseTime& own,
            Step& result) {
  auto slowest = std::max_element(result.parts.begin(), result.parts.end(),
                                  [](const Part& a, const Part& b) { return a.seconds < b.seconds; });
  result.seconds = slowest->seconds;
  bool reduces = slowest->name == result.parts[0].name && own.exposed > own.compute;
  result.bound_by = reduces ? "dense all-reduce" : slowest->name;
  result.samples_per_s = layout.trainers * layout.batch / result.seconds;
  result.loader_cores = result.samples_per_s * engine.loader_sample_s;
  bool room = result.trainer.total() <= kMemoryUse * pools.trainers.device_memory_bytes;
  result.fits = room && result.server_bytes <= kMemoryUse * pools.servers.memory_bytes;
  double trainer_hosts = std::ceil(layout.trainers / pools.trainers.devices_per_host);
  result.usd_per_hour = trainer_hosts * pools.trainers.price_usd_per_hour +
                        layout.workers * pools.workers.price_usd_per_hour +
                        layout.servers * pools.servers.price_usd_per_hour;
  result.watts = trainer_hosts * pools.trainers.watts + layout.workers * pools.workers.watts +
                 layout.servers * pools.servers.watts;
}

Step step_on_devices(const Work& work, const Pools& pools, const Engine& engine, const Layout& layout,
                     const BatchIds& ids, const Storage& held) {
  DenseTime own = dense_time(work, pools, engine, layout);
  DeviceTablesTime tables =
      device_tables_time(work, pools, engine, layout, ids, busiest_owner(layout, ids, layout.trainers));
  Step result;
  result.trainer = dense_memory(work, layout, ids);
  result.trainer.tables = fullest_bytes(layout, held, layout.trainers);
  result.latency_s = own.compute + own.exposed + tables.look_up + tables.exchange;
  // Look-ups and the dense network share the device.
  result.parts = {{"trainers", own.compute + own.exposed + tables.look_up},
                  {"look-ups on devices", tables.look_up},
                  {"exchange of vectors", tables.exchange},
                  {"staleness bound", result.latency_s / layout.staleness}};
  finish(pools, engine, layout, own, result);
  return result;
}

// Bytes of one batch on each edge between roles.
struct Traffic {
  double to_workers, to_servers, from_servers, to_trainer, from_trainer;
};
Traffic traffic(const Engine& engine, const Layout& layout, const BatchIds& ids) {
  double rows = std::min(engine.server_wire_bytes, 4.0);
  return {.to_workers = ids.ids * kIdBytes,
          .to_servers = ids.distinct * kIdBytes + ids.row_elements * rows,
          .from_servers = ids.fetched_elements * rows,
          .to_trainer = ids.pooled_elements * layout.wire_bytes,
          .from_trainer = ids.pooled_elements * layout.wire_bytes};
}

}  // namespace

std::vector<Zipf> popularity(const Work& work) {
  std::vector<Zipf> tables;
  for (const EmbeddingTable& table : work.model.tables) {
    bool known = !tables.empty() && tables.back().ids() == std::floor(table.rows);
    tables.push_back(known ? tables.back() : Zipf(table.rows, work.zipf));
  }
  return tables;
}

BatchIds batch_ids(const Work& work, const std::vector<Zipf>& tables, double batch, double cache_bytes) {
  BatchIds sum;
  double cached = 0;
  for (size_t i = 0; i < tables.size(); ++i) {
    const EmbeddingTable& table = work.model.tables[i];
    double dim = real(table.dim), draws = batch * table.pooling;
    // Every table gets its part of the cache by bytes looked up.
    double share = table.pooling * dim / (embedding_bytes_read(work.model, 1));
    double top = std::floor(cache_bytes * share / (dim * work.element_bytes + kIdBytes));
    double distinct = tables[i].distinct(draws), fetched = top > 0 ? tables[i].distinct(draws, top) : distinct;
    sum.ids += draws, sum.distinct += distinct, sum.from_servers += fetched;
    sum.row_elements += distinct * dim, sum.fetched_elements += fetched * dim;
    sum.pooled_elements += batch * dim;
    cached += draws * tables[i].top_share(top);
    sum.table_load.push_back(distinct);
  }
  sum.cache_hit_share = cached / sum.ids;
  return sum;
}

Storage storage(const Work& work, const std::vector<Zipf>& tables, const Engine& engine) {
  Storage sum;
  for (size_t i = 0; i < tables.size(); ++i) {
    const EmbeddingTable& table = work.model.tables[i];
    double rows = work.samples > 0 ? tables[i].distinct(work.samples * table.pooling) : table.rows;
    double bytes = rows * row_bytes(work, table, engine);
    sum.virtual_rows += table.rows, sum.resident_rows += rows, sum.bytes += bytes;
    sum.largest_table_bytes = std::max(sum.largest_table_bytes, bytes);
  }
  return sum;
}

Step step(const Work& work, const Pools& pools, const Engine& engine, const Layout& layout, const BatchIds& ids,
          const Storage& held) {
  if (layout.placement == Placement::trainers) return step_on_devices(work, pools, engine, layout, ids, held);
  Traffic bytes = traffic(engine, layout, ids);
  DenseTime own = dense_time(work, pools, engine, layout);
  double busiest = busiest_owner(layout, ids, layout.servers), n = layout.trainers,
         share = engine.network_share;
  double per_host = std::min(n, pools.trainers.devices_per_host);
  double server_net = pools.servers.network_bytes_per_s * share,
         worker_net = pools.workers.network_bytes_per_s * share;
  double trainer_net = pools.trainers.network_bytes_per_s * share;
  // A worker serves whole batches, so some serve one more than others.
  double batches_per_worker = n / layout.workers;
  double server_s = (ids.from_servers * engine.server_get_s + ids.distinct * engine.server_put_s) +
                    (bytes.to_servers + bytes.from_servers) / engine.core_bytes_per_s;
  double worker_each_way =
      ids.ids * engine.worker_id_s + (bytes.from_servers + bytes.to_trainer) / engine.core_bytes_per_s;
  // Reduction of dense gradients crosses the same network as embeddings.
  double hosts = std::ceil(n / pools.trainers.devices_per_host);
  double reduce_bytes = layout.dense_sync ? 2 * (hosts - 1) / hosts * 4 * dense_parameters(work.model) : 0;

  double in_servers = n * busiest * std::max(bytes.to_servers, bytes.from_servers) / server_net;
  double get = std::max(std::max(1.0, batches_per_worker) * bytes.from_servers / worker_net,
                        n * busiest * bytes.from_servers / server_net);
  double put = std::max(std::max(1.0, batches_per_worker) * bytes.to_servers / worker_net,
                        n * busiest * bytes.to_servers / server_net);
  double hand_over = per_host * (bytes.to_trainer + bytes.from_trainer) / trainer_net +
                     (bytes.to_trainer + bytes.from_trainer) / pools.trainers.host_bytes_per_s;
  Step result;
  result.latency_s = get + put + hand_over + 2 * worker_each_way +
                     n * busiest * server_s / pools.servers.cores + 6 * engine.message_s + own.compute +
                     own.exposed;
  result.parts = {
      {"trainers", own.compute + own.exposed},
      {"network of trainers", (per_host * bytes.to_trainer + reduce_bytes) / trainer_net},
      {"cores of workers", batches_per_worker * 2 * worker_each_way / pools.workers.cores},
      {"network of workers", batches_per_worker *
                                 std::max(bytes.to_workers + bytes.from_servers + bytes.from_trainer,
                                          bytes.to_servers + bytes.to_trainer) /
                                 worker_net},
      {"cores of servers", n * busiest * server_s / pools.servers.cores},
      {"network of servers", in_servers},
      {"staleness bound", result.latency_s / layout.staleness}};
  result.server_bytes = fullest_bytes(layout, held, layout.servers);
  result.trainer = dense_memory(work, layout, ids);
  finish(pools, engine, layout, own, result);
  return result;
}

}  // namespace tessera::plan::recsys
