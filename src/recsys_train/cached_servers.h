// Hot rows kept by a worker inside the bound of staleness. A row that was read when the puts of `a` steps were
// in it may stand for itself as long as a get asks for no more than those: with a bound of s steps a row is
// read from its server once in about s steps, however often it is asked for. Nothing is sent to keep it fresh,
// and the bound of a get is that of the servers, to the step.
//
//   CachedServers cached(servers, {.rows = 1 << 16, .dims = {16}});
//
// A read goes through, and so do puts; they touch no row here. Oldest rows leave when there are too many.
// Threads: any.
#pragma once

#include <atomic>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "recsys_train/forwarding_servers.h"

namespace tessera::recsys_train {

class CachedServers : public ForwardingServers {
 public:
  struct Options {
    int64_t rows = 1 << 16;     // of each group
    std::vector<int64_t> dims;  // of each group
  };
  CachedServers(EmbeddingServers& servers, Options options);

  Status get(int64_t group, std::span<const uint64_t> ids, std::span<float> rows, const GetOptions& options,
             int64_t* applied) override;
  Traffic traffic() const override {
    Traffic all = servers_.traffic();
    all.cache = {gets_, hits_};
    return all;
  }

 private:
  // Rows in a ring of places: the oldest gives way.
  struct Cache {
    std::mutex mutex;
    std::unordered_map<uint64_t, uint32_t> place_of;
    std::vector<uint64_t> ids;     // of each place
    std::vector<int64_t> applied;  // steps whose puts are in the row
    std::vector<float> rows;
    size_t next = 0;
  };
  void look(Cache& cache, size_t dim, std::span<const uint64_t> ids, int64_t needs_step, std::span<float> rows,
            std::vector<uint64_t>& missing, std::vector<int64_t>& positions);
  void keep(Cache& cache, size_t dim, std::span<const uint64_t> ids, std::span<const float> rows,
            int64_t applied);

  Options options_;
  std::vector<std::unique_ptr<Cache>> caches_;
  std::atomic<int64_t> gets_{0}, hits_{0};
};

}  // namespace tessera::recsys_train
