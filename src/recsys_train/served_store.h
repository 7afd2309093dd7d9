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
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "recsys/store.h"

namespace tessera::recsys_train {

struct ServingOptions {
  int64_t parts = 1;     // of a step
  bool ordered = false;  // puts in the order of (step, part)
  double timeout_s = 300;
  std::string resume;  // folder of a checkpoint (checkpoint.h) whose rows a fresh store takes; empty: none
};

// The number of servers may change while they serve. Each such map of servers has a number; who asks for rows
// says which map it went by.
constexpr uint64_t kAnyMap = UINT64_MAX;  // of callers for whom nothing moves
struct ServerSeat {
  int64_t server = 0, servers = 1;
  uint64_t map = 0;
};

struct GetOptions {
  recsys::Access access = recsys::Access::train;
  int64_t needs_step = 0;  // every put of the steps before this one must have been applied
  uint64_t map = kAnyMap;
};

// A version of the rows for those who serve them (export.h).
struct VersionRequest {
  int64_t number = 0;
  bool full = false;  // everything, else what changed since the version before
  // Of this request: one that comes again is answered again. A delta follows the request with the id before its
  // own, so what a dead writer has left under way breaks no chain.
  uint64_t id = 0;
};

// The number of the part's puts in a store group; 0 is nobody.
inline uint64_t sender_of(int64_t part, int64_t store_group, int64_t store_groups) {
  return static_cast<uint64_t>(1 + part * store_groups + store_group);
}

class ServedStore {
 public:
  ServedStore(std::unique_ptr<recsys::Store> store, ServingOptions options);
  // Server `server` of `num_servers`, with the rows of ServingOptions::resume unless the store's shared memory
  // holds later ones. Errors: those of the store and of the checkpoint.
  static Result<std::unique_ptr<ServedStore>> open(recsys::StoreOptions store, ServingOptions options,
                                                   int64_t server, int64_t num_servers);
  ~ServedStore();

  // As recsys::Store. `applied`, where given: the steps whose puts are all in the rows that were read.
  Status get(int64_t group, std::span<const uint64_t> ids, std::span<float> rows, const GetOptions& options,
             int64_t* applied = nullptr);
  // A put with a sequence is applied once, however often it comes.
  Status put(int64_t group, std::span<const uint64_t> ids, std::span<const float> gradients,
             const recsys::PutOptions& options, uint64_t map = kAnyMap);

  // Sum of the hashes of all records of a group once every put of the steps before `step` has been applied:
  // equal for equal rows, however many servers they lie on.
  Result<uint64_t> digest(int64_t group, int64_t step, uint64_t map = kAnyMap);

  // Cuts a snapshot of the rows once every put of the steps before `step` has been applied, and writes it to
  // FOLDER/name beside others' work: what changed since this store's last one, or everything where `full`, or
  // where there is none. Returns when the cut is made. Fails when a later put came before it. A save that was
  // begun is not begun again.
  Status begin_save(const std::string& folder, const std::string& name, int64_t step, bool full,
                    uint64_t map = kAnyMap);
  // Waits for it. Names of the files, from the last full one on, that make up the rows.
  Result<std::vector<std::string>> finish_save(int64_t step);

  // Returns when the file is whole. Fails with not_found where the version that a delta builds on is not the
  // last one here, as in a process that took another's place.
  Status save_version(const std::string& path, const VersionRequest& version, uint64_t map = kAnyMap);

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

  // ---- another number of servers (recsys_roles/mover.h); served_move.cpp ----
  // A request that went by another map than this one's is refused with `unavailable`: its sender looks for the
  // new map and asks those who own the ids now. Ends hold_at() and stand_still(). Until clean(), digests and
  // saves wait.
  void take_seat(const ServerSeat& seat);
  // Removes the rows that belong to other servers.
  Status clean();
  // The last sequence of any sender that is in the rows or on its way there.
  uint64_t latest();
  // Puts of this step and later wait from now on. Fails with `aborted` when there was one already.
  Status hold_at(int64_t step);
  enum class Stand : uint8_t { not_yet, saving, still };
  // Whether all puts before the step of hold_at() are in the rows. If so, nothing changes any more until
  // release() or take_seat(): gets and saves wait as well. `saving`: a checkpoint has been begun and not
  // finished, and it is to be of one map.
  Stand stand_still(int64_t step);
  void release();
  // For rows that came from elsewhere: as if the puts of all earlier steps had been made here.
  Status begin_at(int64_t step);

  recsys::Store& store() { return *store_; }

 private:
  uint64_t& applied(int64_t group, int64_t part) {
    return applied_[static_cast<size_t>(part * store_->num_groups() + group)];
  }
  bool is_busy(int64_t group, int64_t part) const {
    return busy_.contains(sender_of(part, group, store_->num_groups()));
  }
  int64_t applied_steps(int64_t group);
  Status await_steps(int64_t group, int64_t steps, uint64_t map, std::unique_lock<std::mutex>& lock);
  uint64_t last_sequence() const;
  bool is_stale(uint64_t map) const { return map != kAnyMap && map != seat_.map; }
  Error moved() const;
  Status await_motion(uint64_t map, bool clean, std::unique_lock<std::mutex>& lock);
  Status check_seat(uint64_t map);
  Status get_by_map(int64_t group, std::span<const uint64_t> ids, std::span<float> rows,
                    const GetOptions& options, int64_t* applied);
  bool is_next(int64_t group, int64_t part, uint64_t sequence);
  Status put_once(int64_t group, std::span<const uint64_t> ids, std::span<const float> gradients,
                  const recsys::PutOptions& options, uint64_t map);
  bool fresh();
  Status start_at(int64_t step);
  Status await_cut(int64_t step, uint64_t map);
  void write(const std::string& folder, const std::string& name, bool full, std::promise<Status> cut);

  std::unique_ptr<recsys::Store> store_;
  ServingOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<uint64_t, uint64_t> busy_;  // senders whose put is under way, and its sequence
  std::vector<uint64_t> applied_;      // last sequence of each part in each store group
  bool copying_ = false;               // puts wait for the cut
  ServerSeat seat_;
  uint64_t hold_ = UINT64_MAX;  // puts of later sequences wait
  bool still_ = false;          // so does everything else
  bool cleaning_ = false;       // there are rows of others
  bool save_pending_ = false;   // between begin_save() and finish_save()
  int64_t reading_ = 0;         // gets by map under way
  std::shared_ptr<const Forward> forward_;

  std::mutex saving_;  // what follows
  int64_t saved_step_ = -1;
  std::vector<std::string> saved_files_;  // from the last full one on
  Status saved_;
  std::thread writer_;

  std::mutex versioning_;  // what follows
  std::optional<VersionRequest> version_;
  Status versioned_;
};

}  // namespace tessera::recsys_train
