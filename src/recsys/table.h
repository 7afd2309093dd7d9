// The rows of one group. A request is cut into blocks. The rows of a block are searched without locks
// (search.h); then they are fetched some ids ahead, so that the memory of many is on its way at once. A get
// copies them under their versions (row_versions.h), also without locks. Everything that changes rows visits
// the ids of a block in order of their shards, and locks each shard once, one at a time. Whoever finds another
// id in the record than it searched asks the index again under the lock.
//
// With a folder for them, rows that a budget sends away lie on disk: a row is in memory or on disk, never in
// both. Rows of a block that are there are read together, without locks, and go back to memory (or are only
// looked at) before the block is visited; one that went out again in between is read alone, under the lock.
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
#include "recsys/disk_index.h"
#include "recsys/disk_rows.h"
#include "recsys/eviction.h"
#include "recsys/journal.h"
#include "recsys/owed_rows.h"
#include "recsys/row_space.h"
#include "recsys/row_update.h"
#include "recsys/row_versions.h"
#include "recsys/search.h"
#include "recsys/store.h"

namespace tessera::recsys {

// Rows of a shard that are on disk.
struct DiskShard {
  DiskShard(DiskSpace& space, int64_t number) : rows(space, number) {}
  int64_t bytes() const { return index.bytes() + static_cast<int64_t>(rows.end()) / 4; }  // in memory
  DiskIndex index;
  DiskRows rows;
  uint64_t moves = 0;             // segments given back: who read before may have read other rows
  std::vector<uint64_t> pending;  // of a snapshot under way, as for rows in memory
  OwedRows owed;
};

struct Shard {
  Shard(RowSpace& space, BucketSpace& buckets, ShardHead& head, RowVersions& row_versions, int64_t number,
        const GroupOptions& group, int64_t num_shards)
      : index(buckets, head.index),
        rows(space, number),
        versions(row_versions),
        admission(group.admission, num_shards) {
    head.chunks = space.chunks_of(number);
  }
  std::mutex mutex;  // of all that changes the shard
  Index index;
  ShardRows rows;
  RowVersions& versions;
  Admission admission;
  std::atomic<uint64_t> removals = 0;  // while it stands still, a record that was found stays where it is
  GroupStats stats;
  std::unique_ptr<DiskShard> disk;

  // Of a snapshot under way: rows whose bytes at the cut are still to be written, and those that were copied
  // because somebody was about to change them.
  std::vector<uint64_t> pending;
  std::vector<std::byte> saved;
  // Ids removed since the last cut, and those of the snapshot under way. Before the first cut nobody asks what
  // changed.
  bool tracks_changes = false;
  std::vector<uint64_t> removed, removed_before_cut;
  OwedRows owed;
};

// Where the rows of a table lie, when not in private memory.
struct SharedRows {
  std::string path;
  Journal* journal = nullptr;
  uint32_t group = 0;
};

struct DiskReads;
struct ShardOrder;

class Table {
 public:
  static Result<std::unique_ptr<Table>> create(const GroupOptions& group, int64_t num_shards,
                                               const SharedRows& shared = {}, const DiskOptions& disk = {});

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
  void cut(SnapshotChain chain, bool full);
  using WriteRows = std::function<Status(std::span<const std::byte> records)>;
  using WriteIds = std::function<Status(std::span<const uint64_t> ids)>;
  Status drain(const WriteRows& rows, const WriteIds& removed);
  void forget(SnapshotChain chain);
  // Whole records, as drain() gave them; replaces rows that are there.
  Status restore(std::span<const std::byte> records);
  const RecordLayout& layout() const { return update_.layout(); }
  Status for_each_record(const std::function<void(uint64_t id, std::span<const std::byte> record)>& visit);

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
    // A row on disk, for a visit that leaves it there.
    const std::byte* on_disk = nullptr;
    uint32_t slot = 0;
  };
  enum class OnDisk : uint8_t { bring_back, look };
  // visit(Visitor&) for every id, under the lock of its shard, until one fails. `floats`: the caller's, one row
  // per id, or null.
  template <class Visit>
  Status for_each(std::span<const uint64_t> ids, const float* floats, OnDisk on_disk, const Visit& visit);
  template <class Visit>
  Status visit_block(std::span<const uint64_t> ids, size_t first, const float* floats, OnDisk on_disk,
                     const Visit& visit);
  void search(Search& search, std::span<const uint64_t> ids) const;
  void fetch(const std::byte* record, bool write) const;
  size_t fetch_group() const;

  // A get that changes no row that is there.
  struct Reading {
    float* rows;
    Access access;
    uint64_t now;
  };
  Status read_block(std::span<const uint64_t> ids, size_t first, const Reading& reading);
  size_t copy_unlocked(const Search& found, std::span<const uint64_t> ids, const Reading& reading, float* out,
                       uint16_t* missed) const;
  Status visit_for_get(Visitor& visitor, const Reading& reading);

  uint64_t index_hash(uint64_t hash) const { return hash << shard_bits_; }
  size_t shard_number(uint64_t hash) const { return shard_bits_ == 0 ? 0 : hash >> (64 - shard_bits_); }
  void find_record(Visitor& visitor);
  Status make_row(Visitor& visitor, uint64_t now);
  bool grow(Shard& shard, uint64_t buckets);
  void remove(Shard& shard, uint32_t row);
  // For so many more rows.
  Status make_room(Shard& shard, uint64_t more);
  Result<uint32_t> take_row(Shard& shard);
  Error no_room() const;
  bool drop_expired(Visitor& visitor, uint64_t now);
  // To be called before the bytes of a row change.
  void touch(Shard& shard, uint32_t row) {
    if (shard.tracks_changes) shard.rows.mark_dirty(row);
    keep_for_snapshot(shard, row);
  }
  void keep_for_snapshot(Shard& shard, uint32_t row) {
    if (row / 64 < shard.pending.size() && (shard.pending[row / 64] >> row % 64 & 1) != 0)
      save_for_snapshot(shard, row);
  }
  void save_for_snapshot(Shard& shard, uint32_t row);
  void adopt_chunks();
  void leave_memory(Shard& shard, uint32_t row, uint64_t hash);

  // ---- rows on disk (table_disk.cpp); under the lock unless it says otherwise ----
  // Without locks: reads the rows of a block that are not in memory.
  Status read_ahead(const Search& found, const ShardOrder& order, size_t count, DiskReads& reads);
  Status bring_back(const Search& found, const ShardOrder& order, std::span<const uint64_t> ids);
  Status bring_back_one(Visitor& visitor);
  // The row that was read ahead, when it is that of the visitor; else it is read again.
  Status look(Visitor& visitor, const DiskReads& reads, size_t place);
  Status find_on_disk(Visitor& visitor);
  Status to_memory(Shard& shard, uint32_t slot, uint64_t hash, const std::byte* record);
  Status spill(Shard& shard, std::span<const uint32_t> rows);
  Status compact(Shard& shard);
  Status write_again(Shard& shard, size_t segment);
  void remove_from_disk(Shard& shard, uint32_t slot, const std::byte* record);
  void keep_for_snapshot(Shard& shard, uint32_t slot, const std::byte* record);
  Status drain_disk(Shard& shard, const WriteRows& rows);
  Status rebuild_disk_index(Shard& shard);
  Result<int64_t> expire_on_disk(Shard& shard, uint64_t now);

  Status drain_shard(Shard& shard, const WriteRows& rows, const WriteIds& removed);
  Status overwrite(std::span<const uint64_t> ids, const std::byte* records);
  void note_old_bytes(WriterSlot& slot, const Visitor& visitor, uint64_t done);

  GroupOptions group_;
  RowUpdate update_;
  Eviction eviction_;
  int shard_bits_;
  SharedRows shared_;
  std::unique_ptr<RowSpace> space_;
  std::unique_ptr<DiskSpace> disk_;  // null: rows that leave memory are gone
  std::unique_ptr<BucketSpace> buckets_;
  // Of each shard, apart from the rest of it: what a get reads for every id.
  std::unique_ptr<ShardHead[]> heads_;
  std::unique_ptr<RowVersions[]> versions_;
  std::vector<std::unique_ptr<Shard>> shards_;
  std::atomic<bool> tracks_changes_ = false;  // so do shards, or will soon
};

}  // namespace tessera::recsys
