// The embedding servers as a trainer sees them: rows by group and id, wherever they lie. An id belongs to one
// server (recsys::server_of), and what a row holds does not depend on how many there are.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "recsys/wire_end.h"
#include "recsys_train/served_store.h"

namespace tessera::recsys_train {

using recsys::WireConfig, recsys::WireCount, recsys::WireEnd;

struct CacheCount {
  int64_t gets = 0, hits = 0;  // distinct rows asked for by training, and those that were here
};
// Between a worker and its servers since it started.
struct Traffic {
  WireCount wire;    // where messages are packed
  CacheCount cache;  // where the worker keeps rows
};
void add(const Traffic& one, Traffic& sum);

// Threads: any, as recsys::Store.
class EmbeddingServers {
 public:
  virtual ~EmbeddingServers() = default;
  // As ServedStore::get and put.
  virtual Status get(int64_t group, std::span<const uint64_t> ids, std::span<float> rows,
                     const GetOptions& options, int64_t* applied = nullptr) = 0;
  virtual Status put(int64_t group, std::span<const uint64_t> ids, std::span<const float> gradients,
                     const recsys::PutOptions& options) = 0;
  virtual int64_t num_servers() const = 0;
  // Summed over servers.
  virtual Result<recsys::GroupStats> stats(int64_t group) = 0;
  virtual Result<uint64_t> digest(int64_t group, int64_t step) = 0;
  // As ServedStore, of all servers: server I writes FOLDER/step-T/server-I.rows.
  virtual Status begin_save(const std::string& folder, int64_t step, bool full) = 0;
  virtual Result<std::vector<std::vector<std::string>>> finish_save(int64_t step) = 0;
  // As ServedStore, of all servers: server I writes FOLDER/version_rows_file(I, ...). Returns how many there
  // are.
  virtual Result<int64_t> save_version(const std::string& folder, const VersionRequest& version) = 0;
  virtual Traffic traffic() const { return {}; }
};

// `num_servers` stores in this process. Threads of one call: one.
Result<std::unique_ptr<EmbeddingServers>> make_local_servers(const std::vector<recsys::GroupOptions>& groups,
                                                             int64_t num_servers,
                                                             const ServingOptions& serving = {},
                                                             const recsys::DiskOptions& disk = {});

// Below the folder of all checkpoints: "step-T/server-I.rows".
std::string rows_file(int64_t step, int64_t server);

// Below the folder of an exported model: "rows-I-N.full" or "rows-I-N.delta".
std::string version_rows_file(int64_t server, const VersionRequest& version);

void add(const recsys::GroupStats& one, recsys::GroupStats& sum);

// Ids by the server that owns them: what goes to each, and where its answers belong.
struct Routing {
  std::vector<std::vector<uint64_t>> ids;       // of each server
  std::vector<std::vector<int64_t>> positions;  // in the caller's list
};
Routing route(std::span<const uint64_t> ids, int64_t num_servers);
// Rows from the caller's order into that of one server, and back.
void gather(std::span<const float> all, std::span<const int64_t> positions, int64_t dim,
            std::vector<float>& part);
void scatter(std::span<const float> part, std::span<const int64_t> positions, int64_t dim,
             std::span<float> all);

}  // namespace tessera::recsys_train
