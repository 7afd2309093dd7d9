#include "recsys_train/servers.h"

#include <algorithm>

namespace tessera::recsys_train {
namespace {

class LocalServers : public EmbeddingServers {
 public:
  explicit LocalServers(std::vector<std::unique_ptr<ServedStore>> stores) : stores_(std::move(stores)) {}

  int64_t num_servers() const override { return static_cast<int64_t>(stores_.size()); }

  Status get(int64_t group, std::span<const uint64_t> ids, std::span<float> rows, const GetOptions& options,
             int64_t* applied) override {
    if (stores_.size() == 1) return stores_[0]->get(group, ids, rows, options, applied);
    Routing routing = route(ids, num_servers());
    std::vector<float> part;
    int64_t least = INT64_MAX, here = 0;
    for (size_t i = 0; i < stores_.size(); ++i) {
      part.resize(routing.ids[i].size() * static_cast<size_t>(dim(group)));
      TESSERA_RETURN_IF_ERROR(
          stores_[i]->get(group, routing.ids[i], part, options, applied != nullptr ? &here : nullptr));
      least = std::min(least, here);
      scatter(part, routing.positions[i], dim(group), rows);
    }
    if (applied != nullptr) *applied = least;
    return {};
  }

  Status put(int64_t group, std::span<const uint64_t> ids, std::span<const float> gradients,
             const recsys::PutOptions& options) override {
    if (stores_.size() == 1) return stores_[0]->put(group, ids, gradients, options);
    Routing routing = route(ids, num_servers());
    std::vector<float> part;
    for (size_t i = 0; i < stores_.size(); ++i) {
      gather(gradients, routing.positions[i], dim(group), part);
      TESSERA_RETURN_IF_ERROR(stores_[i]->put(group, routing.ids[i], part, options));
    }
    return {};
  }

  Result<recsys::GroupStats> stats(int64_t group) override {
    recsys::GroupStats sum;
    for (const auto& store : stores_) add(store->store().stats(group), sum);
    return sum;
  }

  Status begin_save(const std::string& folder, int64_t step, bool full) override {
    for (size_t i = 0; i < stores_.size(); ++i)
      TESSERA_RETURN_IF_ERROR(
          stores_[i]->begin_save(folder, rows_file(step, static_cast<int64_t>(i)), step, full));
    return {};
  }

  Result<std::vector<std::vector<std::string>>> finish_save(int64_t step) override {
    std::vector<std::vector<std::string>> files;
    for (const auto& store : stores_) {
      TESSERA_ASSIGN_OR_RETURN(files.emplace_back(), store->finish_save(step));
    }
    return files;
  }

  Result<uint64_t> digest(int64_t group, int64_t step) override {
    uint64_t sum = 0;
    for (const auto& store : stores_) {
      TESSERA_ASSIGN_OR_RETURN(uint64_t part, store->digest(group, step));
      sum += part;
    }
    return sum;
  }

  Result<int64_t> save_version(const std::string& folder, const VersionRequest& version) override {
    for (int64_t i = 0; i < num_servers(); ++i)
      TESSERA_RETURN_IF_ERROR(
          stores_[static_cast<size_t>(i)]->save_version(folder + "/" + version_rows_file(i, version), version));
    return num_servers();
  }

 private:
  int64_t dim(int64_t group) const { return stores_[0]->store().group(group).dim; }
  std::vector<std::unique_ptr<ServedStore>> stores_;
};

}  // namespace

Result<std::unique_ptr<EmbeddingServers>> make_local_servers(const std::vector<recsys::GroupOptions>& groups,
                                                             int64_t num_servers, const ServingOptions& serving,
                                                             const recsys::DiskOptions& disk) {
  if (num_servers < 1) return invalid("{} embedding servers: expected at least 1", num_servers);
  std::vector<std::unique_ptr<ServedStore>> stores;
  for (int64_t i = 0; i < num_servers; ++i) {
    TESSERA_ASSIGN_OR_RETURN(auto store,
                             ServedStore::open({.groups = groups, .disk = disk}, serving, i, num_servers));
    stores.push_back(std::move(store));
  }
  return std::unique_ptr<EmbeddingServers>(std::make_unique<LocalServers>(std::move(stores)));
}

std::string rows_file(int64_t step, int64_t server) {
  return fmt::format("step-{}/server-{}.rows", step, server);
}

std::string version_rows_file(int64_t server, const VersionRequest& version) {
  return fmt::format("rows-{}-{}.{}", server, version.number, version.full ? "full" : "delta");
}

void add(const recsys::GroupStats& one, recsys::GroupStats& sum) {
  sum.rows += one.rows;
  sum.bytes += one.bytes;
  sum.created += one.created;
  sum.evicted += one.evicted;
  sum.refused += one.refused;
  sum.expired += one.expired;
  sum.disk_rows += one.disk_rows;
  sum.disk_bytes += one.disk_bytes;
  sum.spilled += one.spilled;
  sum.returned += one.returned;
  sum.absent_gradients += one.absent_gradients;
  sum.not_finite_gradients += one.not_finite_gradients;
}

void add(const Traffic& one, Traffic& sum) {
  sum.wire.bytes += one.wire.bytes;
  sum.wire.raw_bytes += one.wire.raw_bytes;
  sum.cache.gets += one.cache.gets;
  sum.cache.hits += one.cache.hits;
}

Routing route(std::span<const uint64_t> ids, int64_t num_servers) {
  Routing routing;
  routing.ids.resize(static_cast<size_t>(num_servers));
  routing.positions.resize(static_cast<size_t>(num_servers));
  const recsys::SlotMap& map = recsys::slot_map(static_cast<uint32_t>(num_servers));
  for (size_t i = 0; i < ids.size(); ++i) {
    const size_t server = map.server_of(ids[i]);
    routing.ids[server].push_back(ids[i]);
    routing.positions[server].push_back(static_cast<int64_t>(i));
  }
  return routing;
}

void gather(std::span<const float> all, std::span<const int64_t> positions, int64_t dim,
            std::vector<float>& part) {
  part.resize(positions.size() * static_cast<size_t>(dim));
  for (size_t i = 0; i < positions.size(); ++i)
    std::copy_n(all.data() + positions[i] * dim, dim, part.data() + static_cast<int64_t>(i) * dim);
}

void scatter(std::span<const float> part, std::span<const int64_t> positions, int64_t dim,
             std::span<float> all) {
  for (size_t i = 0; i < positions.size(); ++i)
    std::copy_n(part.data() + static_cast<int64_t>(i) * dim, dim, all.data() + positions[i] * dim);
}

}  // namespace tessera::recsys_train
