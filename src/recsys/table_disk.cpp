// Rows of a table that are on disk: they go there by the shard, and come back by the block.
#include <algorithm>

#include "recsys/table_visit.h"

namespace tessera::recsys {
namespace {

// Of the disk, its budget, or a limit on the size of files.
bool is_full(const Status& status) {
  return !status.ok() && status.error().code == ErrorCode::resource_exhausted;
}

}  // namespace

// ---- there ----

// A row leaves memory only when the disk has it whole: a process that dies in between leaves both, and the one
// in memory counts.
Status Table::spill(Shard& shard, std::span<const uint32_t> rows) {
  static thread_local std::vector<std::byte> records;
  static thread_local std::vector<uint32_t> slots;
  const int64_t bytes = update_.layout().bytes;
  records.clear();
  for (uint32_t row : rows)
    records.insert(records.end(), shard.rows.record(row), shard.rows.record(row) + bytes);
  DiskShard& disk = *shard.disk;
  Status status = disk.rows.append(records, slots);
  for (size_t tries = disk.rows.num_segments(); tries > 0 && is_full(status); --tries) {
    int64_t segment = disk.rows.wasteful_segment(true);
    if (segment < 0 || !write_again(shard, static_cast<size_t>(segment)).ok()) break;
    status = disk.rows.append(records, slots);
  }
  if (!status.ok())
    return status.error().within(
        fmt::format("group '{}' has no room for more rows, in memory or on disk", group_.name));
  for (uint32_t row : rows) disk.index.prefetch(index_hash(mix64(id_of(shard.rows.record(row)))));
  for (size_t i = 0; i < rows.size(); ++i) {
    uint64_t hash = mix64(id_of(shard.rows.record(rows[i])));
    keep_for_snapshot(shard, rows[i]);
    disk.rows.set_live(slots[i], shard.rows.dirty(rows[i]) || shard.owed.owes(rows[i]));
    disk.index.insert(index_hash(hash), slots[i]);
    leave_memory(shard, rows[i], hash);
  }
  shard.stats.spilled += static_cast<int64_t>(rows.size());
  return compact(shard);
}

Status Table::compact(Shard& shard) {
  constexpr int kMost = 2;  // segments in one call: they win more room than one spill takes
  for (int i = 0; i < kMost; ++i) {
    int64_t segment = shard.disk->rows.wasteful_segment(false);
    if (segment < 0) return {};
    Status status = write_again(shard, static_cast<size_t>(segment));
    if (is_full(status)) return {};  // it stays as it is
    TESSERA_RETURN_IF_ERROR(status);
  }
  return {};
}

Status Table::write_again(Shard& shard, size_t segment) {
  DiskShard& disk = *shard.disk;
  std::vector<std::byte> records;
  std::vector<uint32_t> from, to;
  size_t bytes = static_cast<size_t>(update_.layout().bytes);
  TESSERA_RETURN_IF_ERROR(disk.rows.for_each_in(
      segment, [](uint32_t) { return true; },
      [&](uint32_t slot, const std::byte* record) {
        from.push_back(slot);
        records.insert(records.end(), record, record + bytes);
      }));
  TESSERA_RETURN_IF_ERROR(disk.rows.append(records, to, true));
  for (size_t i = 0; i < from.size(); ++i) {
    const std::byte* record = &records[i * bytes];
    keep_for_snapshot(shard, from[i], record);
    disk.rows.set_live(to[i], disk.rows.dirty(from[i]) || disk.owed.owes(from[i]));
    disk.index.move(index_hash(mix64(id_of(record))), from[i], to[i]);
    disk.rows.drop(from[i]);
  }
  disk.rows.release(segment);
  ++disk.moves;
  return {};
}

// ---- and back ----

Result<const std::byte*> DiskReads::record_of(const Row& row, const DiskShard& shard) {
  if (shard.moves != row.moves || !shard.rows.live(row.slot)) return nullptr;
  const std::byte* record = shard.rows.record_in(row.slot, row.read);
  if (record == nullptr) return shard.rows.damaged(row.slot);
  return record;
}

Status Table::read_ahead(const Search& found, const ShardOrder& order, size_t count, DiskReads& reads) {
  reads.rows.clear();
  std::fill_n(reads.first_of, count, int16_t{-1});
  for (size_t i = 0; i < count; ++i)
    if (found.record(i) == nullptr) shards_[found.shard(i)]->disk->index.prefetch(index_hash(found.hash(i)));
  std::unique_lock<std::mutex> lock;
  const Shard* locked = nullptr;
  for (size_t i = 0; i < count; ++i) {
    uint16_t place = order.positions[i];
    if (found.record(place) != nullptr) continue;
    Shard& shard = *shards_[found.shard(place)];
    if (&shard != locked) {
      if (lock.owns_lock()) lock.unlock();
      lock = std::unique_lock(shard.mutex);
      locked = &shard;
    }
    shard.disk->index.for_each_match(index_hash(found.hash(place)), [&](uint32_t slot) {
      reads.first_of[place] = static_cast<int16_t>(reads.rows.size());
      reads.rows.push_back({place, slot, shard.disk->moves, nullptr});
      reads.reads.push_back(shard.disk->rows.read_of(slot, nullptr));
      return true;  // an id that shares 40 bits with another may be read alone
    });
  }
  if (lock.owns_lock()) lock.unlock();
  if (reads.rows.empty()) return {};
  size_t bytes = shards_[0]->disk->rows.read_bytes();
  std::byte* buffer = reads.buffer.at_least(bytes * reads.rows.size());
  for (size_t i = 0; i < reads.rows.size(); ++i) reads.rows[i].read = reads.reads[i].into = buffer + i * bytes;
  Status status = disk_->file().read_batch(reads.reads, bytes);
  reads.reads.clear();
  return status;
}

Status Table::bring_back(const Search& found, const ShardOrder& order, std::span<const uint64_t> ids) {
  static thread_local DiskReads reads;
  TESSERA_RETURN_IF_ERROR(read_ahead(found, order, ids.size(), reads));
  for (size_t first = 0, last = 0; first < reads.rows.size(); first = last) {
    size_t number = found.shard(reads.rows[first].place);
    while (last < reads.rows.size() && found.shard(reads.rows[last].place) == number) ++last;
    Shard& shard = *shards_[number];
    std::lock_guard lock(shard.mutex);
    // All at once, so that none of them makes room for another.
    TESSERA_RETURN_IF_ERROR(make_room(shard, last - first));
    for (size_t i = first; i < last; ++i) {
      const DiskReads::Row& row = reads.rows[i];
      TESSERA_ASSIGN_OR_RETURN(const std::byte* record, DiskReads::record_of(row, *shard.disk));
      if (record == nullptr || id_of(record) != ids[row.place]) continue;
      TESSERA_RETURN_IF_ERROR(to_memory(shard, row.slot, found.hash(row.place), record));
    }
  }
  return {};
}

Status Table::to_memory(Shard& shard, uint32_t slot, uint64_t hash, const std::byte* record) {
  TESSERA_ASSIGN_OR_RETURN(uint32_t row, take_row(shard));
  {
    RowVersions::Writing writing(shard.versions, row);
    std::memcpy(shard.rows.record(row), record, static_cast<size_t>(update_.layout().bytes));
  }
  DiskShard& disk = *shard.disk;
  shard.rows.mark_clean(row);
  if (disk.rows.dirty(slot) || disk.owed.owes(slot)) shard.rows.mark_dirty(row);
  shard.rows.set_live(row);
  shard.index.insert(index_hash(hash), Index::tag_of(hash), row);
  keep_for_snapshot(shard, slot, record);
  disk.index.remove(index_hash(hash), slot);
  disk.rows.drop(slot);
  ++shard.stats.returned;
  return {};
}

Status Table::find_on_disk(Visitor& visitor) {
  const DiskShard& disk = *visitor.shard->disk;
  Status status;
  disk.index.for_each_match(index_hash(visitor.hash), [&](uint32_t slot) {
    auto record = disk.rows.read(slot);
    if (!record) {
      status = record.error();
      return true;
    }
    if (id_of(*record) != visitor.id) return false;
    visitor.on_disk = *record;
    visitor.slot = slot;
    return true;
  });
  return status;
}

Status Table::look(Visitor& visitor, const DiskReads& reads, size_t place) {
  if (reads.first_of[place] >= 0) {
    const DiskReads::Row& row = reads.rows[static_cast<size_t>(reads.first_of[place])];
    TESSERA_ASSIGN_OR_RETURN(const std::byte* record, DiskReads::record_of(row, *visitor.shard->disk));
    if (record != nullptr && id_of(record) == visitor.id) {
      visitor.on_disk = record;
      visitor.slot = row.slot;
      return {};
    }
  }
  return find_on_disk(visitor);
}

Status Table::bring_back_one(Visitor& visitor) {
  TESSERA_RETURN_IF_ERROR(find_on_disk(visitor));
  if (visitor.on_disk == nullptr) return {};
  // Room is made first: it may move the row on the disk, or need the memory that it was read into.
  TESSERA_RETURN_IF_ERROR(make_room(*visitor.shard, 1));
  TESSERA_RETURN_IF_ERROR(find_on_disk(visitor));
  TESSERA_RETURN_IF_ERROR(to_memory(*visitor.shard, visitor.slot, visitor.hash, visitor.on_disk));
  visitor.on_disk = nullptr;
  find_record(visitor);
  return {};
}

void Table::remove_from_disk(Shard& shard, uint32_t slot, const std::byte* record) {
  keep_for_snapshot(shard, slot, record);
  if (shard.tracks_changes) shard.removed.push_back(id_of(record));
  shard.disk->index.remove(index_hash(mix64(id_of(record))), slot);
  shard.disk->rows.drop(slot);
}

Result<int64_t> Table::expire_on_disk(Shard& shard, uint64_t now) {
  int64_t gone = 0;
  for (size_t segment = 0; segment < shard.disk->rows.num_segments(); ++segment)
    TESSERA_RETURN_IF_ERROR(shard.disk->rows.for_each_in(
        segment, [](uint32_t) { return true; },
        [&](uint32_t slot, const std::byte* record) {
          if (!eviction_.expired(record, now)) return;
          remove_from_disk(shard, slot, record);
          ++gone;
        }));
  TESSERA_RETURN_IF_ERROR(compact(shard));
  return gone;
}

// ---- snapshots and restarts ----

void Table::keep_for_snapshot(Shard& shard, uint32_t slot, const std::byte* record) {
  std::vector<uint64_t>& pending = shard.disk->pending;
  if (slot / 64 >= pending.size() || (pending[slot / 64] >> slot % 64 & 1) == 0) return;
  shard.saved.insert(shard.saved.end(), record, record + update_.layout().bytes);
  pending[slot / 64] &= ~(uint64_t{1} << slot % 64);
}

Status Table::drain_disk(Shard& shard, const WriteRows& rows) {
  DiskShard& disk = *shard.disk;
  std::vector<std::byte> records;
  for (size_t segment = 0;; ++segment) {
    {
      std::lock_guard lock(shard.mutex);
      records.swap(shard.saved);
      shard.saved.clear();
      if (segment * disk.rows.slots_per_segment() >= disk.pending.size() * 64) {
        disk.pending = {};
      } else {
        auto pending = [&](uint32_t slot) { return (disk.pending[slot / 64] >> slot % 64 & 1) != 0; };
        TESSERA_RETURN_IF_ERROR(
            disk.rows.for_each_in(segment, pending, [&](uint32_t slot, const std::byte* record) {
              records.insert(records.end(), record, record + update_.layout().bytes);
              disk.pending[slot / 64] &= ~(uint64_t{1} << slot % 64);
            }));
      }
    }
    if (!records.empty()) TESSERA_RETURN_IF_ERROR(rows(records));
    records.clear();
    if (disk.pending.empty()) return {};
  }
}

// A row that is in memory too was on its way between the two when the process died; so was one that is on disk
// twice, and both are the same.
Status Table::rebuild_disk_index(Shard& shard) {
  DiskShard& disk = *shard.disk;
  for (size_t segment = 0; segment < disk.rows.num_segments(); ++segment) {
    std::vector<uint32_t> stale;
    Status status;
    TESSERA_RETURN_IF_ERROR(disk.rows.for_each_in(
        segment, [](uint32_t) { return true; },
        [&](uint32_t slot, const std::byte* record) {
          Visitor visitor{.position = 0,
                          .id = id_of(record),
                          .hash = mix64(id_of(record)),
                          .shard = &shard,
                          .record = nullptr,
                          .row = kNoRow};
          find_record(visitor);
          if (visitor.record == nullptr && status.ok()) status = find_on_disk(visitor);
          if (visitor.record != nullptr || visitor.on_disk != nullptr)
            stale.push_back(slot);
          else
            disk.index.insert(index_hash(visitor.hash), slot);
        }));
    TESSERA_RETURN_IF_ERROR(status);
    for (uint32_t slot : stale) disk.rows.drop(slot);
  }
  return {};
}

}  // namespace tessera::recsys
