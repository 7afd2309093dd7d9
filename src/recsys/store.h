// Embedding rows by 64-bit id, in groups. The address space is 2^64 ids per group; a row is made at the first
// get that admits its id, and only such rows cost memory.
//
//   auto store = Store::create({.groups = {{.name = "user", .dim = 16}}});
//   (*store)->get(0, ids, rows);                     // rows: ids.size() x 16 floats, in the order of the ids
//   (*store)->put(0, ids, gradients, {.step = 17});  // any order, any subset, any other get in between
//
// Gradients are keyed: the gradient at position i belongs to ids[i] and touches no other row, whatever became
// of its neighbours. An id without a row (refused, evicted since) loses its own gradient, which is counted. An
// id that stands k times in one put is updated k times, in the order of the call; coalesce() merges first.
//
// Bits: what a row holds after a sequence of puts depends on that sequence of gradients of its own id only;
// not on other ids, threads, batches, the processor, or how ids are spread over stores.
// Threads: any, for every member. Two calls may interleave row by row; each row is read and updated whole.
// Programmer errors (a group that is not there, sizes that do not match) stop the program.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "recsys/options.h"
#include "recsys/slot_map.h"
#include "recsys/snapshot.h"

namespace tessera::recsys {

struct StoreOptions {
  std::vector<GroupOptions> groups;
  // Shards are the unit of locking and of growth, per group; a shard holds at most 2^24 rows. A power of two.
  int64_t num_shards = 64;
  // Rows that outlive the process: one file per group, then one for the journal; empty: private memory. A store
  // on the files of another finds its rows, however that one ended. See memory_files_in() and MemoryKeeper.
  std::vector<std::string> memory_files;
  // For groups with a budget: rows beyond it go to a file here and come back when they are asked for. With
  // memory files these rows outlive the process too, in NAME.disk and NAME.map.
  DiskOptions disk;
};

// GROUP.rows for each group and `journal`, in that folder.
std::vector<std::string> memory_files_in(const std::string& folder, const std::vector<GroupOptions>& groups);

enum class Access : uint8_t {
  train,  // makes rows for admitted ids and tells the policies of the visit
  read,   // changes nothing; an id without a row reads as a training get of a fresh store would give it:
          // its initial value where all ids are admitted, else zeros
};

struct PutOptions {
  uint64_t step = 0;               // number of the batch: feeds stochastic rounding and the age of rows
  double learning_rate_scale = 1;  // a schedule's factor on the group's rate
  // With shared rows: who sends, and which of its puts this is. A put that was applied before is not applied
  // again, also after the process died; one that was cut short goes on where it stopped, when it is repeated
  // with the same ids. Sequences of a sender ascend, one put at a time. Sender 0: not remembered.
  uint64_t sender = 0, sequence = 0;
};

struct PutCount {
  int64_t updated = 0;
  int64_t absent = 0;      // ids without a row
  int64_t not_finite = 0;  // gradients with NaN or infinity; their rows stay as they were
  bool repeated = false;   // this sequence was applied before, and nothing was done
};

struct GroupStats {
  int64_t rows = 0;   // resident
  int64_t bytes = 0;  // resident, with index and all that belongs to the rows
  int64_t created = 0, evicted = 0, refused = 0, expired = 0;
  int64_t disk_rows = 0, disk_bytes = 0;  // beside those that are resident
  int64_t spilled = 0, returned = 0;      // rows that went to disk and came back
  int64_t absent_gradients = 0, not_finite_gradients = 0;
};

// Who follows the snapshots of a store. Each chain has a full snapshot and deltas of its own, which know
// nothing of the other's. `none`: a full one that nothing follows.
enum class SnapshotChain : uint8_t { checkpoints, versions, moves, none };
constexpr size_t kSnapshotChains = 3;

class Store {
 public:
  static Result<std::unique_ptr<Store>> create(StoreOptions options);
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  int64_t num_groups() const;
  const GroupOptions& group(int64_t group) const;
  Result<int64_t> group_named(std::string_view name) const;  // the error offers the nearest name

  // rows[i * dim, (i + 1) * dim) is the row of ids[i] as float32. Duplicates are welcome.
  // REQUIRES: rows.size() == ids.size() * dim.
  // Fails when there is no room for a new row, in memory or on disk (resource_exhausted), or a row on disk
  // cannot be read (data_loss); rows that were filled before stay filled, and no row that is there is lost.
  Status get(int64_t group, std::span<const uint64_t> ids, std::span<float> rows,
             Access access = Access::train);

  // Applies the group's optimizer to the row of each id.
  // REQUIRES: gradients.size() == ids.size() * dim.
  // Fails as get does, when some rows were updated already; with sender and sequence the same put goes on
  // there.
  Result<PutCount> put(int64_t group, std::span<const uint64_t> ids, std::span<const float> gradients,
                       const PutOptions& options = {});

  // The last sequence of a sender that was applied, also by processes before this one; 0: none, or private
  // rows.
  uint64_t applied(uint64_t sender) const;

  // Sets values, with a fresh optimizer state; makes rows where there are none, past admission. For imports.
  Status assign(int64_t group, std::span<const uint64_t> ids, std::span<const float> rows);
  // Removes rows; ids without one are passed over. Returns how many went.
  int64_t erase(int64_t group, std::span<const uint64_t> ids);
  // present[i] = whether ids[i] has a row. Changes nothing. REQUIRES: equal sizes.
  void find(int64_t group, std::span<const uint64_t> ids, std::span<uint8_t> present) const;

  // What eviction by score ranks rows by; rows start at 0. Ids without a row are passed over; returns how many
  // had one. REQUIRES: the group's eviction is `score`; equal sizes.
  int64_t set_scores(int64_t group, std::span<const uint64_t> ids, std::span<const float> scores);
  // Frees the rows whose time to live is over. They count as gone already; this gives their memory to others.
  int64_t expire(int64_t group);

  // The clock of policies: the newest step they have heard of. put() moves it; a trainer without puts may call
  // this.
  void advance(uint64_t step);

  GroupStats stats(int64_t group) const;

  // ---- snapshots ----
  // Writes the store as it stands between two puts, while gets and puts go on. A delta holds what changed since
  // the snapshot before it in its chain, and needs one in the life of this store. The file appears whole or not
  // at all. Format: snapshot.h. One save at a time, also of different chains.
  enum class SnapshotKind : uint8_t { full, delta };
  struct SnapshotInfo {
    int64_t rows = 0, removed = 0, bytes = 0;
    uint64_t number = 0;     // 0 for the full one, then 1, 2, ...
    double cut_seconds = 0;  // while puts waited
  };
  // `on_cut` is called once the state is fixed, before it is written.
  Result<SnapshotInfo> save(const std::string& path, SnapshotKind kind,
                            const std::function<void()>& on_cut = {},
                            SnapshotChain chain = SnapshotChain::checkpoints);
  // The same for rows that move to other stores: one file for each of them, with the ids that `part_of` gives
  // its number in `paths`; those of a number beyond are left out. The chain is `moves`.
  using PartOf = std::function<size_t(uint64_t id)>;
  Result<SnapshotInfo> save_parts(std::span<const std::string> paths, const PartOf& part_of, SnapshotKind kind);
  // Nobody follows this chain any more: what changes is no longer noted for it. REQUIRES: not `none`.
  void forget(SnapshotChain chain);
  // Adds the rows of a full snapshot and its deltas in their order, for ids that belong to server `server` of
  // `num_servers`: call it for the files of every old server. On errors the store is to be thrown away.
  Status load(std::span<const std::string> files, uint32_t server = 0, uint32_t num_servers = 1);
  // The next file of a chain, beside others that get and put. `before` is the head of the file before it, from
  // SnapshotHead{} on. The file is checked whole before the first row is taken.
  Status apply(const std::string& file, SnapshotHead& before);
  // Removes the rows whose id is not kept, beside others that get and put. Returns how many went.
  Result<int64_t> keep_only(const std::function<bool(uint64_t id)>& keeps);

  // Every row, in no order: its id and its record (row_update.h). For comparisons; others may run beside it.
  // Fails when a row on disk cannot be read.
  Status for_each(int64_t group,
                  const std::function<void(uint64_t id, std::span<const std::byte> record)>& visit) const;

 private:
  class Impl;
  Result<SnapshotInfo> save_to(std::span<const std::string> paths, const PartOf& part_of, SnapshotKind kind,
                               const std::function<void()>& on_cut, SnapshotChain chain);
  explicit Store(std::unique_ptr<Impl> impl);
  static Status recover(Impl& impl);
  std::unique_ptr<Impl> impl_;
};

// One gradient per distinct id: `ids` in order of first appearance, the sum of the gradients of each in the
// order of the call. Sums are float32.
struct Coalesced {
  std::vector<uint64_t> ids;
  std::vector<float> gradients;
};
Coalesced coalesce(std::span<const uint64_t> ids, std::span<const float> gradients, int64_t dim);

}  // namespace tessera::recsys
