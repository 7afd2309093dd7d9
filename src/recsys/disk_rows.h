// Records of one group that left memory, in one file that is written in the manner of a log. A shard appends to
// its open segment; a slot whose row went back to memory or away is dead, and when more than half of a shard's
// slots are dead, the rows of the emptiest segment are written again and the segment is free for any shard.
//
//   NAME.disk   segments of 64 units; a unit is a page, or the pages of one record where that is longer; a unit
//               holds whole slots: record, u64 XXH3 of the record seeded with the place of the slot
//   NAME.map    0              header: one page
//               kTablesOffset  per shard, per segment of the shard: u32 1 + segment of the file, 0 none
//               live_offset    per shard 2^24 bits: the slot holds a row
//               dirty_offset   per shard 2^24 bits: changed since the last snapshot
//
// The map lies in memory that all processes share, as rows do (row_space.h). A slot becomes live after its
// bytes are written, so a process that dies leaves a whole row or none. With private rows both files have no
// name. Threads: a shard's rows belong to whoever holds the shard; different shards may grow at once.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "recsys/disk_file.h"
#include "recsys/region.h"

namespace tessera::recsys {

class DiskSpace {
 public:
  static constexpr int64_t kSegmentUnits = 64;
  static constexpr int64_t kSlotsOfShard = (int64_t{1} << 24) - 1;
  static constexpr int64_t kBitsPerShard = (int64_t{1} << 24) / 8;  // bytes of one bit map

  // `path` without the endings, empty for private rows. `options_hash` must be that of the files.
  static Result<std::unique_ptr<DiskSpace>> create(const DiskOptions& options, int64_t record_bytes,
                                                   int64_t num_shards, const std::string& path = "",
                                                   uint64_t options_hash = 0);
  // One segment is always kept for compaction, which on a full disk is what makes room.
  Result<uint32_t> take_segment(bool for_compaction);
  void give_back(uint32_t segment);
  int64_t bytes() const;  // of the segments in use

  DiskFile& file() const { return *file_; }
  int64_t record_bytes() const { return record_bytes_; }
  int64_t slot_bytes() const { return record_bytes_ + static_cast<int64_t>(sizeof(uint64_t)); }
  int64_t unit_bytes() const { return unit_bytes_; }
  int64_t slots_per_unit() const { return slots_per_unit_; }
  int64_t slots_per_segment() const { return slots_per_unit_ * kSegmentUnits; }
  int64_t segment_bytes() const { return unit_bytes_ * kSegmentUnits; }
  int64_t segments_of_shard() const { return kSlotsOfShard / slots_per_segment(); }
  uint32_t* table(int64_t shard) const;
  uint64_t* live_bits(int64_t shard) const { return bits(live_offset_, shard); }
  uint64_t* dirty_bits(int64_t shard) const { return bits(dirty_offset_, shard); }

 private:
  struct Header {
    static constexpr uint64_t kMagic = 0x31306b7369646354;  // "Tcdisk01"
    uint64_t magic, record_bytes, num_shards, options_hash;
  };
  uint64_t* bits(int64_t offset, int64_t shard) const {
    return reinterpret_cast<uint64_t*>(map_.data() + offset + shard * kBitsPerShard);
  }
  Status open_map(const std::string& path, uint64_t options_hash);
  void find_free_segments();

  DiskOptions options_;
  std::unique_ptr<DiskFile> file_;
  Region map_;
  int64_t record_bytes_ = 0, num_shards_ = 0, unit_bytes_ = 0, slots_per_unit_ = 0;
  int64_t live_offset_ = 0, dirty_offset_ = 0;
  mutable std::mutex mutex_;
  uint32_t segments_ = 0;  // that the file has room for
  std::vector<uint32_t> free_;
};

// The slots of one shard.
class DiskRows {
 public:
  DiskRows(DiskSpace& space, int64_t shard);

  // Writes records and gives their slots, which are not live yet. On errors nothing is taken.
  Status append(std::span<const std::byte> records, std::vector<uint32_t>& slots, bool for_compaction = false);
  void set_live(uint32_t slot, bool dirty);
  void drop(uint32_t slot);
  bool live(uint32_t slot) const { return (live_[slot / 64] >> slot % 64 & 1) != 0; }
  bool dirty(uint32_t slot) const { return (dirty_[slot / 64] >> slot % 64 & 1) != 0; }
  // Of 64 slots: those that are live and, unless `all`, changed since the last call; from now on unchanged.
  uint64_t take_changes(size_t word, bool all);
  uint32_t end() const { return static_cast<uint32_t>(live_in_.size()) * slots_per_segment_; }

  // A read for a batch of `read_bytes()` each, and the record in what came, or null when its hash is wrong.
  size_t read_bytes() const;
  DiskRead read_of(uint32_t slot, std::byte* into) const;
  const std::byte* record_in(uint32_t slot, const std::byte* read) const;
  // One row at once; the record lies in memory of this thread until its next call.
  Result<const std::byte*> read(uint32_t slot) const;
  Error damaged(uint32_t slot) const;

  // ---- whole segments, numbered below num_segments() ----
  size_t num_segments() const { return live_in_.size(); }
  uint32_t slots_per_segment() const { return slots_per_segment_; }
  // The segment to write again, or -1 while there is little to win. `pressed`: a quarter of a segment counts.
  int64_t wasteful_segment(bool pressed) const;
  // visit(slot, record) for every slot of the segment that `wanted(slot)` and is live.
  template <class Wanted, class Visit>
  Status for_each_in(size_t segment, const Wanted& wanted, const Visit& visit) const;
  // REQUIRES: no slot of it is live.
  void release(size_t segment);

 private:
  static constexpr size_t kNone = ~size_t{0};
  Status take_segments(int64_t count, bool for_compaction, std::vector<size_t>& taken);
  size_t free_place();
  int64_t unit_offset(size_t segment, int64_t unit) const;
  int64_t offset_of(uint32_t slot) const;
  const std::byte* checked(uint32_t slot, const std::byte* place) const;
  std::byte* segment_buffer() const;

  DiskSpace* space_;
  uint32_t slots_per_segment_;
  uint32_t* table_;
  uint64_t *live_, *dirty_;
  std::vector<uint32_t> live_in_;  // live slots of each segment
  int64_t used_segments_ = 0, num_live_ = 0;
  size_t open_ = kNone;    // the segment that is appended to,
  int64_t open_unit_ = 0;  // at this unit
};

template <class Wanted, class Visit>
Status DiskRows::for_each_in(size_t segment, const Wanted& wanted, const Visit& visit) const {
  uint32_t first = static_cast<uint32_t>(segment) * slots_per_segment_;
  std::byte* bytes = nullptr;
  for (uint32_t slot = first; slot < first + slots_per_segment_; ++slot) {
    if (live_[slot / 64] == 0 || !live(slot) || !wanted(slot)) continue;
    if (bytes == nullptr) {
      bytes = segment_buffer();
      std::span<std::byte> all(bytes, static_cast<size_t>(space_->segment_bytes()));
      TESSERA_RETURN_IF_ERROR(space_->file().read(unit_offset(segment, 0), all));
    }
    const std::byte* place = bytes + (offset_of(slot) - unit_offset(segment, 0));
    const std::byte* record = checked(slot, place);
    if (record == nullptr) return damaged(slot);
    visit(slot, record);
  }
  return {};
}

}  // namespace tessera::recsys
