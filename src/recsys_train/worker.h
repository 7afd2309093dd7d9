// The embedding worker: between those who hold rows (servers.h), those who hold data (loader.h), and a dense
// trainer, who sees numbers and pooled rows only. Ids never travel to the trainer.
//
// load() reads a batch and names its distinct keys, look_up() fetches and pools their rows, give_back() turns
// gradients of pooled rows into gradients of rows and hands them to the servers. Three threads may do so for
// three batches.
//
// Each call may be repeated, also with another worker in place of one that died: a batch is known by its key,
// what was looked up is kept until its gradients are applied, and puts are numbered.
#pragma once

#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "recsys_train/loader.h"
#include "recsys_train/lookup.h"
#include "recsys_train/staleness.h"

namespace tessera::recsys_train {

// A batch as a dense trainer sees it. Shapes as in lookup.h; N numbers.
struct DenseInput {
  int64_t rows = 0;
  std::vector<float> labels, numeric;  // [B], [B, N]
  std::vector<float> pooled, wide;     // [B, P, D], [B, S] where the plan has it
  std::vector<float> lengths;          // [B, Q]
};

class EmbeddingWorker {
 public:
  virtual ~EmbeddingWorker() = default;
  // Rows of the batch; 0 past the end of the epoch.
  virtual Result<int64_t> load(const BatchKey& key) = 0;
  virtual Status look_up(const BatchKey& key, DenseInput& out) = 0;
  // Gradients [B, P, D] and [B, S]; applied when it returns, for one group or all.
  virtual Status give_back(const BatchKey& key, int64_t group, std::span<const float> pooled,
                           std::span<const float> wide) = 0;
  // Summed over servers, of one group.
  virtual Result<recsys::GroupStats> stats(int64_t group) = 0;
  // Of all rows of all groups after the steps before `step` (ServedStore::digest).
  virtual Result<uint64_t> digest(int64_t step) = 0;
  // As EmbeddingServers.
  virtual Status begin_save(const std::string& folder, int64_t step, bool full) = 0;
  virtual Result<std::vector<std::vector<std::string>>> finish_save(int64_t step) = 0;
  virtual Result<int64_t> save_version(const std::string& folder, const VersionRequest& version) = 0;
  virtual Result<Traffic> traffic() = 0;
};

// Works in this process. The parts must outlive it.
class LocalWorker : public EmbeddingWorker {
 public:
  // `bounds`: of staleness, in steps, of each group.
  LocalWorker(BatchLoader& loader, EmbeddingServers& servers, LookupPlan plan, StalenessBounds bounds);
  Result<int64_t> load(const BatchKey& key) override;
  Status look_up(const BatchKey& key, DenseInput& out) override;
  Status give_back(const BatchKey& key, int64_t group, std::span<const float> pooled,
                   std::span<const float> wide) override;
  Result<recsys::GroupStats> stats(int64_t group) override;
  Result<uint64_t> digest(int64_t step) override;
  Status begin_save(const std::string& folder, int64_t step, bool full) override {
    return servers_.begin_save(folder, step, full);
  }
  Result<std::vector<std::vector<std::string>>> finish_save(int64_t step) override {
    return servers_.finish_save(step);
  }
  Result<int64_t> save_version(const std::string& folder, const VersionRequest& version) override {
    return servers_.save_version(folder, version);
  }
  Result<Traffic> traffic() override { return servers_.traffic(); }

 private:
  struct Entry {
    std::mutex mutex;  // one stage at a time
    recsys_data::Batch batch;
    Lookup lookup;
    bool loaded = false, looked_up = false;
    std::vector<bool> applied;  // groups whose gradients are
  };
  std::shared_ptr<Entry> entry_of(const BatchKey& key);
  void forget(const BatchKey& key);
  Status load_into(const BatchKey& key, Entry& entry);

  BatchLoader& loader_;
  EmbeddingServers& servers_;
  LookupPlan plan_;
  StalenessBounds bounds_;
  std::mutex loading_;  // one batch after the other: the deduplicator has one table
  Deduplicator deduplicator_;
  std::mutex mutex_;
  std::unordered_map<uint64_t, std::shared_ptr<Entry>> entries_;
  std::vector<std::shared_ptr<Entry>> idle_;  // their memory serves the next batches
};

}  // namespace tessera::recsys_train
