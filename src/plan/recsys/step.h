// Speed and memory of one layout of a recommender's trainer (Persia's roles): embedding servers hold rows,
// embedding workers look up, pool and route, trainers compute the dense network, loaders feed.
//
// A trainer keeps at most `staleness` batches between look-up and update; 1 is synchronous training. Its period
// is the longest of: its own work (with the exposed part of the dense all-reduce), every shared resource
// (cores and network of servers and workers, network of trainer hosts), and the latency of one batch through
// all roles divided by the batches in flight. So staleness buys throughput until a resource is full.
//
// Units: seconds, bytes; a batch is that of one trainer. Threads: values.
#pragma once

#include <string>
#include <vector>

#include "plan/recsys/pools.h"
#include "plan/recsys/zipf.h"
#include "spec/recommender.h"

namespace tessera::plan::recsys {

struct Work {
  Recommender model;
  double zipf = 1.05;               // exponent of ids' popularity; 0: uniform
  double samples = 0;               // of the whole run: only touched rows exist; 0: every row does
  double state_bytes_per_row = -1;  // of the optimizer; -1: one float32 per element (Adagrad)
  double element_bytes = 4;         // of a row's values
  double replicas = 1;              // of every row
};

enum class Sharding { rows, tables };  // rows by hash over all servers, or whole tables
// Where rows live: on embedding servers, or in the memory of the trainers' devices (TorchRec's placement),
// which then exchange pooled vectors among themselves and need neither servers nor workers.
enum class Placement { servers, trainers };

struct Layout {
  double servers = 1, workers = 1, trainers = 1;  // hosts, hosts, devices
  double batch = 1024;
  double staleness = 8;
  bool dense_sync = true;  // false: trainers do not wait for each other (asynchronous dense part)
  double wire_bytes = 2;   // of an element between workers and trainers
  double cache_share = 0;  // of a worker's memory, for the hottest rows
  Sharding sharding = Sharding::rows;
  Placement placement = Placement::servers;
};

// What does not depend on how many hosts there are: ids of one batch and cache.
struct BatchIds {
  double ids = 0, distinct = 0;  // of one batch, all tables
  double from_servers = 0;       // distinct rows that the workers' cache lacks
  double row_elements = 0, fetched_elements = 0, pooled_elements = 0;
  double cache_hit_share = 0;      // of look-ups
  std::vector<double> table_load;  // distinct rows by table
};
BatchIds batch_ids(const Work& work, const std::vector<Zipf>& tables, double batch, double cache_bytes);
std::vector<Zipf> popularity(const Work& work);

// Rows and bytes of all servers together.
struct Storage {
  double virtual_rows = 0, resident_rows = 0, bytes = 0;
  double largest_table_bytes = 0;
};
Storage storage(const Work& work, const std::vector<Zipf>& tables, const Engine& engine);

// Bytes of the fullest device of a trainer.
struct TrainerMemory {
  double dense = 0;        // float32 weights, gradients and Adam's moments of the dense network
  double activations = 0;  // of a batch, and their gradients
  double vectors = 0;      // pooled vectors of the batches at hand, and their gradients
  double tables = 0;       // rows with optimizer state and index, where they live here
  double total() const { return dense + activations + vectors + tables; }
};

struct Part {
  const char* name;
  double seconds;
};

struct Step {
  double seconds = 0;        // between two batches of one trainer
  double samples_per_s = 0;  // of all trainers
  double latency_s = 0;      // of one batch through all roles
  std::string bound_by;
  std::vector<Part> parts;  // what each resource needs per step; the largest bounds
  double server_bytes = 0;  // of the fullest server
  TrainerMemory trainer;
  bool fits = false;
  double loader_cores = 0;
  double usd_per_hour = 0, watts = 0;
};
// Of a memory, what rows and networks may fill.
inline constexpr double kMemoryUse = 0.9;

Step step(const Work& work, const Pools& pools, const Engine& engine, const Layout& layout, const BatchIds& ids,
          const Storage& storage);

}  // namespace tessera::plan::recsys
