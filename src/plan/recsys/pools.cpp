#include "plan/recsys/pools.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/file.h"
#include "core/nearest.h"
#include "core/toml.h"
#include "plan/catalogue.h"
#include "plan/cluster.h"
#include "plan/embedded.h"
#include "plan/hardware/gpu_cluster.h"

namespace tessera::plan::recsys {
namespace {

using nlohmann::json;

struct Field {
  const char* key;
  double* into;
};

Status read_numbers(const TomlDocument& document, const std::string& path, const json& table,
                    const std::vector<Field>& fields, std::vector<std::string> also) {
  std::vector<std::string> known = std::move(also);
  for (const Field& field : fields) {
    known.emplace_back(field.key);
    if (!table.contains(field.key)) continue;
    const json& value = table.at(field.key);
    if (!value.is_number() || value.get<double>() < 0)
      return invalid("{}: {}: got {}, expected a number of at least 0", document.where(path), field.key,
                     value.dump());
    *field.into = value.get<double>();
  }
  for (const auto& [key, value] : table.items())
    if (std::find(known.begin(), known.end(), key) == known.end())
      return invalid("{}: unknown key '{}'{}", document.where(path), key, did_you_mean(key, known));
  return {};
}

Status devices_of_gpus(const std::string& name, Pool& pool) {
  TESSERA_ASSIGN_OR_RETURN(GpuCluster gpus, load_gpu_cluster(name));
  pool.flops_per_s = gpus.device.peak(MathFormat::tf32) * gpus.efficiency.gemm_bf16;
  if (pool.flops_per_s == 0) pool.flops_per_s = gpus.device.peak_bf16 * gpus.efficiency.gemm_bf16;
  pool.link_bytes_per_s = gpus.inner().bytes_per_s * gpus.efficiency.link;
  pool.host_bytes_per_s = gpus.device.host_bytes_per_s > 0 ? gpus.device.host_bytes_per_s : 25e9;
  pool.device_memory_bytes = gpus.device.memory_bytes, pool.device_bytes_per_s = gpus.device.memory_bytes_per_s;
  auto per_host = static_cast<double>(gpus.reliability.devices_per_host);
  if (pool.network_bytes_per_s == 0)
    pool.network_bytes_per_s = per_host * (gpus.tiers.size() > 1 ? gpus.tiers[1] : gpus.inner()).bytes_per_s;
  if (pool.price_usd_per_hour == 0) pool.price_usd_per_hour = per_host * gpus.economy.price;
  if (pool.watts == 0) pool.watts = per_host * (gpus.power.device_w + gpus.power.host_w);
  if (pool.devices_per_host == 0) pool.devices_per_host = per_host;
  return {};
}

// One process of a measured CPU host is a device.
void devices_of_host(const Cluster& host, Pool& pool) {
  auto cores = static_cast<double>(std::max<int64_t>(1, host.cores));
  double flops = 2.0 * 512 * 512 * 512;
  pool.flops_per_s = flops / host.product_s(Product::nt, Precision::float32, 512, 512, 512);
  double link = host.tiers.empty() ? 0 : host.tiers.back().bytes_per_s;
  if (!host.links.empty()) link = 8e6 / collective_s(host, Collective::send, 2, 1, 8e6);
  pool.link_bytes_per_s = pool.host_bytes_per_s = link;
  if (pool.network_bytes_per_s == 0) pool.network_bytes_per_s = link;
  if (pool.devices_per_host == 0) pool.devices_per_host = cores;
  if (pool.cores == 0) pool.cores = cores;
  if (pool.memory_bytes == 0) pool.memory_bytes = host.memory_bytes;
  pool.device_memory_bytes = host.memory_bytes / pool.devices_per_host;
  pool.device_bytes_per_s = host.memory_bytes_per_s;
  if (pool.price_usd_per_hour == 0) pool.price_usd_per_hour = host.price_usd_per_hour;
  if (pool.watts == 0) pool.watts = host.watts;
}

Status fill_devices(const std::string& name, Pool& pool) {
  if (is_gpu_cluster(name)) return devices_of_gpus(name, pool);
  auto host = load_cluster(name);
  // A name that is neither is answered from the longer list, that of GPU clusters.
  if (!host) return name.ends_with(".toml") ? Status(host.error()) : load_gpu_cluster(name).error();
  devices_of_host(*host, pool);
  return {};
}

Result<Pool> read_pool(const TomlDocument& document, const json& table) {
  Pool pool;
  pool.role = table.value("role", ""), pool.cluster = table.value("cluster", "");
  pool.devices_per_host = 0;
  TESSERA_RETURN_IF_ERROR(read_numbers(document, "pool", table,
                                       {{"hosts", &pool.hosts},
                                        {"cores", &pool.cores},
                                        {"memory_bytes", &pool.memory_bytes},
                                        {"network_bytes_per_s", &pool.network_bytes_per_s},
                                        {"price_usd_per_hour", &pool.price_usd_per_hour},
                                        {"watts", &pool.watts},
                                        {"devices_per_host", &pool.devices_per_host}},
                                       {"role", "cluster"}));
  if (pool.hosts < 1)
    return invalid("{}: hosts = {:g}, expected at least 1", document.where("pool"), pool.hosts);
  if (pool.role == "trainers") {
    if (pool.cluster.empty()) return invalid("{}: a pool of trainers needs 'cluster'", document.where("pool"));
    TESSERA_RETURN_IF_ERROR(fill_devices(pool.cluster, pool));
  } else if (pool.cores <= 0 || pool.memory_bytes <= 0 || pool.network_bytes_per_s <= 0) {
    return invalid("{}: a pool of {} needs cores, memory_bytes and network_bytes_per_s", document.where("pool"),
                   pool.role);
  }
  return pool;
}

const EmbeddedFile* embedded(const std::string& path) {
  for (const EmbeddedFile& file : embedded_files())
    if (file.path == path) return &file;
  return nullptr;
}

// Whole hosts, or a part of one with its share of network, price and power.
Status take_devices(double gpus, Pool& pool) {
  double share = gpus / pool.devices_per_host;
  if (share > 1 && share != std::floor(share))
    return invalid("--gpus {:g}: expected at most {:g}, or a multiple of it: what a host has", gpus,
                   pool.devices_per_host);
  pool.hosts = std::max(1.0, share);
  if (share >= 1) return {};
  pool.devices_per_host = gpus;
  for (double* part : {&pool.network_bytes_per_s, &pool.price_usd_per_hour, &pool.watts}) *part *= share;
  return {};
}

// Trainers of one kind beside the catalogue's CPU hosts.
Result<Pools> around_gpus(const std::string& name, double gpus) {
  TESSERA_ASSIGN_OR_RETURN(Pools pools, parse_pools(embedded("recsys/cpu-hosts.toml")->text, "cpu-hosts.toml"));
  pools.name = name, pools.trainers.role = "trainers", pools.trainers.cluster = name;
  pools.trainers.devices_per_host = 0;
  TESSERA_RETURN_IF_ERROR(fill_devices(name, pools.trainers));
  if (pools.trainers.cores > 0) {  // a measured host does everything
    pools.workers = pools.servers = pools.trainers;
    pools.workers.role = "workers", pools.servers.role = "servers";
  }
  pools.trainers.hosts = 1;
  if (gpus > 0) TESSERA_RETURN_IF_ERROR(take_devices(gpus, pools.trainers));
  return pools;
}

}  // namespace

Result<Pools> parse_pools(const std::string& text, const std::string& file_name) {
  TESSERA_ASSIGN_OR_RETURN(TomlDocument document, parse_toml(text, file_name));
  Pools pools;
  TESSERA_RETURN_IF_ERROR(read_numbers(document, "", document.root, {}, {"name", "pool", "source"}));
  pools.name = document.root.value("name", file_name);
  const std::vector<std::string> roles = {"trainers", "workers", "servers"};
  for (const json& table : document.root.value("pool", json::array())) {
    TESSERA_ASSIGN_OR_RETURN(Pool pool, read_pool(document, table));
    if (pool.role != roles[0] && pool.role != roles[1] && pool.role != roles[2])
      return invalid("{}: role '{}', expected one of {}{}", document.where("pool"), pool.role,
                     fmt::join(roles, ", "), did_you_mean(pool.role, roles));
    (pool.role == "trainers" ? pools.trainers : pool.role == "workers" ? pools.workers : pools.servers) = pool;
  }
  for (const Pool* pool : {&pools.workers, &pools.servers})
    if (pool->role.empty())
      return invalid(
          "{}: no pool of {}; add [[pool]] with role = \"{}\", hosts, cores, memory_bytes, network_bytes_per_s",
          file_name, pool == &pools.workers ? "workers" : "servers",
          pool == &pools.workers ? "workers" : "servers");
  const json source = document.root.value("source", json::object());
  for (const auto& [key, value] : source.items())
    if (value.is_string()) pools.source[key] = value.get<std::string>();
  return pools;
}

std::vector<std::string> pool_names() {
  std::vector<std::string> names = {"persia-gcp"};
  for (const std::string& name : gpu_cluster_names()) names.push_back(name);
  return names;
}

Result<Pools> load_pools(const std::string& name, double gpus) {
  std::string text;
  if (const EmbeddedFile* file = embedded("recsys/" + name + ".toml")) text = file->text;
  if (text.empty() && name.ends_with(".toml")) {
    TESSERA_ASSIGN_OR_RETURN(text, read_file(name));
    if (text.find("[[pool]]") == std::string::npos) return around_gpus(name, gpus);
  }
  if (text.empty()) return around_gpus(name, gpus);
  TESSERA_ASSIGN_OR_RETURN(Pools pools, parse_pools(text, name));
  if (pools.trainers.role.empty()) return invalid("{}: no pool of trainers", name);
  double present = pools.trainers.hosts * pools.trainers.devices_per_host;
  if (gpus > present) return invalid("--gpus {:g}: cluster {} has {:g} devices", gpus, pools.name, present);
  if (gpus > 0) TESSERA_RETURN_IF_ERROR(take_devices(gpus, pools.trainers));
  return pools;
}

Result<Engine> engine(const std::string& name) {
  const EmbeddedFile* file = embedded("recsys/engines.toml");
  TESSERA_ASSIGN_OR_RETURN(TomlDocument document, parse_toml(file->text, "engines.toml"));
  std::vector<std::string> names;
  for (const auto& [key, value] : document.root.items()) names.push_back(key);
  if (!document.root.contains(name))
    return make_error(ErrorCode::not_found, "no engine named '{}'{}; known: {}", name,
                      did_you_mean(name, names), fmt::join(names, ", "));
  const json& table = document.root.at(name);
  Engine e;
  e.name = name;
  TESSERA_RETURN_IF_ERROR(read_numbers(document, name, table,
                                       {{"server_get_s", &e.server_get_s},
                                        {"server_put_s", &e.server_put_s},
                                        {"worker_id_s", &e.worker_id_s},
                                        {"core_bytes_per_s", &e.core_bytes_per_s},
                                        {"trainer_sample_s", &e.trainer_sample_s},
                                        {"trainer_step_s", &e.trainer_step_s},
                                        {"loader_sample_s", &e.loader_sample_s},
                                        {"row_overhead_bytes", &e.row_overhead_bytes},
                                        {"server_wire_bytes", &e.server_wire_bytes},
                                        {"network_share", &e.network_share},
                                        {"message_s", &e.message_s},
                                        {"device_gather_share", &e.device_gather_share},
                                        {"relative_error", &e.relative_error}},
                                       {"source"}));
  for (const auto& [key, value] : table.at("source").items()) e.source[key] = value.get<std::string>();
  return e;
}

}  // namespace tessera::plan::recsys
