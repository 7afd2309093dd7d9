// Servers in front of servers: what a kind of them does not change goes through.
#pragma once

#include "recsys_train/servers.h"

namespace tessera::recsys_train {

class ForwardingServers : public EmbeddingServers {
 public:
  // `servers` must outlive it.
  explicit ForwardingServers(EmbeddingServers& servers) : servers_(servers) {}

  Status get(int64_t group, std::span<const uint64_t> ids, std::span<float> rows, const GetOptions& options,
             int64_t* applied) override {
    return servers_.get(group, ids, rows, options, applied);
  }
  Status put(int64_t group, std::span<const uint64_t> ids, std::span<const float> gradients,
             const recsys::PutOptions& options) override {
    return servers_.put(group, ids, gradients, options);
  }
  int64_t num_servers() const override { return servers_.num_servers(); }
  Result<recsys::GroupStats> stats(int64_t group) override { return servers_.stats(group); }
  Result<uint64_t> digest(int64_t group, int64_t step) override { return servers_.digest(group, step); }
  Status begin_save(const std::string& folder, int64_t step, bool full) override {
    return servers_.begin_save(folder, step, full);
  }
  Result<std::vector<std::vector<std::string>>> finish_save(int64_t step) override {
    return servers_.finish_save(step);
  }
  Result<int64_t> save_version(const std::string& folder, const VersionRequest& version) override {
    return servers_.save_version(folder, version);
  }
  Traffic traffic() const override { return servers_.traffic(); }

 protected:
  EmbeddingServers& servers_;
};

}  // namespace tessera::recsys_train
