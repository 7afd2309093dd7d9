// One embedding server: a store, and the order in which its users may read and write.
//
// Puts are numbered by step and part: the sender says which store group and which part of the step, the
// sequence is the step plus one, so a server that was killed knows from its rows what was applied
// (recsys/journal.h). With `ordered`, the puts of a group take effect in the order of (step, part), whichever
// trainer is faster. A get may ask for all puts before some step: the bound of staleness holds over all
// trainers, and staleness 0 means the same bits for any number of them.
//
// Threads: any. Waits end after `timeout_s` with an error that says whose put is missing.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <vector>

#include "recsys/store.h"

namespace tessera::recsys_train {

struct ServingOptions {
  int64_t parts = 1;     // of a step
  bool ordered = false;  // puts in the order of (step, part)
  double timeout_s = 300;
};

struct GetOptions {
  recsys::Access access = recsys::Access::train;
  int64_t needs_step = 0;  // every put of the steps before this one must have been applied
};

// The number of the part's puts in a store group; 0 is nobody.
inline uint64_t sender_of(int64_t part, int64_t store_group, int64_t store_groups) {
  return static_cast<uint64_t>(1 + part * store_groups + store_group);
}

class ServedStore {
 public:
  ServedStore(std::unique_ptr<recsys::Store> store, ServingOptions options);

  // As recsys::Store. `applied`, where given: the steps whose puts are all in the rows that were read.
  Status get(int64_t group, std::span<const uint64_t> ids, std::span<float> rows, const GetOptions& options,
             int64_t* applied = nullptr);
  // A put with a sequence is applied once, however often it comes.
  Status put(int64_t group, std::span<const uint64_t> ids, std::span<const float> gradients,
             const recsys::PutOptions& options);

  // Sum of the hashes of all records of a group once every put of the steps before `step` has been applied:
  // equal for equal rows, however many servers they lie on.
  Result<uint64_t> digest(int64_t group, int64_t step);

  // ---- a replica of this store elsewhere (recsys_roles/replica.h) ----
  using Forward = std::function<Status(int64_t group, std::span<const uint64_t> ids,
                                       std::span<const float> gradients, const recsys::PutOptions& options)>;
  // Called with every numbered put once it is in the rows, also with one that comes again; the put returns when
  // this does, with its error.
  void forward_to(Forward forward);
  // All rows as they stand between two puts, to that file, and the last sequence of each sender.
  Status copy_to(const std::string& path, std::vector<uint64_t>& applied);
  // Takes over such a copy; the journal remembers that it is whole. Errors: of the file, or of another run.
  Status adopt(const std::string& path, std::span<const uint64_t> applied);
  bool has_adopted() const;

  recsys::Store& store() { return *store_; }

 private:
  uint64_t& applied(int64_t group, int64_t part) {
    return applied_[static_cast<size_t>(part * store_->num_groups() + group)];
  }
  bool is_busy(int64_t group, int64_t part) const {
    return busy_.contains(sender_of(part, group, store_->num_groups()));
  }
  int64_t applied_steps(int64_t group);
  Status await_steps(int64_t group, int64_t steps, std::unique_lock<std::mutex>& lock);
  bool is_next(int64_t group, int64_t part, uint64_t sequence);
  Status put_once(int64_t group, std::span<const uint64_t> ids, std::span<const float> gradients,
                  const recsys::PutOptions& options);

  std::unique_ptr<recsys::Store> store_;
  ServingOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<uint64_t> busy_;        // senders whose put is under way
  std::vector<uint64_t> applied_;  // last sequence of each part in each store group
  bool copying_ = false;           // puts wait for the cut
  std::shared_ptr<const Forward> forward_;
};

}  // namespace tessera::recsys_train
