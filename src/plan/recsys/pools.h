// A cluster for recommenders is mixed: trainers with devices, embedding workers and embedding servers on CPU
// hosts. A TOML file has one [[pool]] per role:
//
//   name = "..."
//   [[pool]]
//   role = "trainers" | "workers" | "servers"     hosts = 8
//   cluster = "a100-40g"                          trainers: a GPU cluster or a file of `tessera calibrate`
//   devices_per_host = 8                          cores, memory_bytes: workers and servers
//   network_bytes_per_s, price_usd_per_hour, watts   of one host
//   [source]
//
// A GPU cluster by name stands for trainers of that kind beside the CPU hosts of data/recsys/cpu-hosts.toml; a
// file of `tessera calibrate` for one host that does everything. Errors: name and key, nearest known offered.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/result.h"

namespace tessera::plan::recsys {

struct Pool {
  std::string role;
  double hosts = 1;
  double cores = 0, memory_bytes = 0;  // of one host
  double network_bytes_per_s = 0;      // of one host, one direction
  double price_usd_per_hour = 0, watts = 0;
  // Of trainers:
  std::string cluster;
  double devices_per_host = 1;
  double flops_per_s = 0;       // of one device, products of float32 values as frameworks run them
  double link_bytes_per_s = 0;  // between devices of a host
  double host_bytes_per_s = 0;  // between a device and its host
  double device_memory_bytes = 0, device_bytes_per_s = 0;
};

struct Pools {
  std::string name;
  Pool trainers, workers, servers;
  std::map<std::string, std::string> source;
};

Result<Pools> parse_pools(const std::string& text, const std::string& file_name);
// `gpus` > 0 sets the devices of a cluster that does not count hosts.
Result<Pools> load_pools(const std::string& name_or_path, double gpus);
std::vector<std::string> pool_names();

// What the software costs, from data/recsys/engines.toml.
struct Engine {
  std::string name;
  double server_get_s = 0, server_put_s = 0;        // of one row on one core
  double worker_id_s = 0;                           // of one id and direction on one core
  double core_bytes_per_s = 0;                      // copied or cast by one core
  double trainer_sample_s = 0, trainer_step_s = 0;  // of the host of one device
  double loader_sample_s = 0;                       // of one core
  double row_overhead_bytes = 0;
  double server_wire_bytes = 4;    // of an element between workers and servers, at most that of the layout
  double network_share = 1;        // of the wire rate
  double message_s = 0;            // of a remote call
  double device_gather_share = 1;  // of a device's memory bandwidth that rows read at random get
  double relative_error = 0.6;     // half width of the interval of a rate
  std::map<std::string, std::string> source;
};
Result<Engine> engine(const std::string& name);

}  // namespace tessera::plan::recsys
