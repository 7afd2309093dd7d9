// The rows of one group. A request is cut into blocks. The rows of a block are searched without locks
// (search.h); then they are fetched some ids ahead, so that the memory of many is on its way at once. A get
// copies them under their versions (row_versions.h), also without locks. Everything that changes rows visits
// the ids of a block in order of their shards, and locks each shard once, one at a time. Whoever finds another
// id in the record than it searched asks the index again under the lock.
//
// Contract and threads: store.h.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "recsys/admission.h"
#include "recsys/eviction.h"
#include "recsys/journal.h"
#include "recsys/row_space.h"
#include "recsys/row_update.h"
#include "recsys/row_versions.h"
#include "recsys/search.h"
#include "recsys/store.h"

namespace tessera::recsys {

struct Shard {
  Shard(RowSpace& space, BucketSpace& buckets, int64_t number, const GroupOptions& group, int64_t num_shards)
      : index(buckets), rows(space, number), admission(group.admission, num_shards) {}
  std::mutex mutex;  // of all that changes the shard
  Index index;
  ShardRows rows;
  RowVersions versions;
  Admission admission;
  std::atomic<uint64_t> removals = 0;  // while it stands still, a record that was found stays where it is
  GroupStats stats;

  // Of a snapshot under way: rows whose bytes at the cut are still to be written, and those that were copied
  // because somebody was about to change them.
  std::vector<uint64_t> pending;
  std::vector<std::byte> saved;
  // Ids removed since the last cut, once there was one; and those of the snapshot under way.
  bool tracks_removals = false;
  std::vector<uint64_t> removed, removed_before_cut;
};

// Where the rows of a table lie, when not in private memory.
struct SharedRows {
  std::string path;
  Journal* journal = nullptr;
  uint32_t group = 0;
};

class Table {
 public:
  static Result<std::unique_ptr<Table>> create(const GroupOptions& group, int64_t num_shards,
                                               const SharedRows& shared = {});

  const GroupOptions& group() const { return group_; }
  Status get(std::span<const uint64_t> ids, float* rows, Access access, uint64_t now);
  Result<PutCount> put(std::span<const uint64_t> ids, const float* gradients, const PutOptions& options,
                       uint64_t now);
  Status assign(std::span<const uint64_t> ids, const float* rows, uint64_t now);
  int64_t erase(std::span<const uint64_t> ids, uint64_t now);
  void find(std::span<const uint64_t> ids, uint8_t* present, uint64_t now);
  int64_t set_scores(std::span<const uint64_t> ids, const float* scores);
  int64_t expire(uint64_t now);
  GroupStats stats();

  // ---- snapshots: cut() while no put runs; drain() beside everything ----
  void cut(bool full);
  using WriteRows = std::function<Status(std::span<const std::byte> records)>;
  using WriteIds = std::function<Status(std::span<const uint64_t> ids)>;
  Status drain(const WriteRows& rows, const WriteIds& removed);
  // Whole records, as drain() gave them; replaces rows that are there.
  Status restore(std::span<const std::byte> records);
  const RecordLayout& layout() const { return update_.layout(); }
  void for_each_record(const std::function<void(uint64_t id, std::span<const std::byte> record)>& visit);

  // ---- after a process death ----
  // Puts back the bytes of a row whose update was cut short. REQUIRES: before rebuild_indexes().
  void undo(const WriterSlot& slot);
  Status rebuild_indexes();  // from the rows, on all cores

 private:
  Table(const GroupOptions& group, int64_t num_shards);

  // One id that is visited: where it stands in the request, its hash, and its record when it has one.
  struct Visitor {
    size_t position;
    uint64_t id, hash;
    Shard* shard;
    std::byte* record;
    uint32_t row;
  };
  // visit(Visitor&) for every id, under the lock of its shard. `floats`: the caller's, one row per id, or null.
  template <class Visit>
  void for_each(std::span<const uint64_t> ids, const float* floats, const Visit& visit);
  template <class Visit>
  void visit_block(std::span<const uint64_t> ids, size_t first, const float* floats, const Visit& visit);
  void search(Search& search, std::span<const uint64_t> ids) const;
  void fetch(const std::byte* record, bool write) const;
  size_t fetch_distance() const;

  // A get that changes no row that is there.
  struct Reading {
    float* rows;
    Access access;
    uint64_t now;
    bool full = false;  // no room for a new row
  };
  void read_block(std::span<const uint64_t> ids, size_t first, Reading& reading);
  bool read_unlocked(const Search& found, size_t i, uint64_t id, uint64_t now, float* out) const;
  void visit_for_get(Visitor& visitor, Reading& reading);

  uint64_t index_hash(uint64_t hash) const { return hash << shard_bits_; }
  size_t shard_number(uint64_t hash) const { return shard_bits_ == 0 ? 0 : hash >> (64 - shard_bits_); }
  void find_record(Visitor& visitor);
  bool make_row(Visitor& visitor, uint64_t now);  // false: no room
  bool grow(Shard& shard, uint64_t buckets);
  void remove(Shard& shard, uint32_t row);
  void make_room(Shard& shard);
  bool drop_expired(Visitor& visitor, uint64_t now);
  // To be called before the bytes of a row change.
  void touch(Shard& shard, uint32_t row) {
    shard.rows.mark_dirty(row);
    if (row / 64 < shard.pending.size() && (shard.pending[row / 64] >> row % 64 & 1) != 0)
      save_for_snapshot(shard, row);
  }
  void save_for_snapshot(Shard& shard, uint32_t row);
  void adopt_chunks();
  Status overwrite(std::span<const uint64_t> ids, const std::byte* records);
  void note_old_bytes(WriterSlot& slot, const Visitor& visitor, uint64_t done);

  GroupOptions group_;
  RowUpdate update_;
  Eviction eviction_;
  int shard_bits_;
  SharedRows shared_;
  std::unique_ptr<RowSpace> space_;
  std::unique_ptr<BucketSpace> buckets_;
  std::vector<std::unique_ptr<Shard>> shards_;
};

}  // namespace tessera::recsys
