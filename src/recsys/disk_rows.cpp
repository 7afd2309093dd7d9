#include "recsys/disk_rows.h"

#include <algorithm>
#include <cstring>

#include "core/hash.h"
#include "recsys/shared_file.h"

namespace tessera::recsys {
namespace {

constexpr int64_t kTablesOffset = 4096;

}  // namespace

// ---- the file ----

Result<std::unique_ptr<DiskSpace>> DiskSpace::create(const DiskOptions& options, int64_t record_bytes,
                                                     int64_t num_shards, const std::string& path,
                                                     uint64_t options_hash) {
  auto space = std::make_unique<DiskSpace>();
  space->options_ = options;
  space->record_bytes_ = record_bytes;
  space->num_shards_ = num_shards;
  space->unit_bytes_ = rounded_up(space->slot_bytes(), kDiskPage);
  space->slots_per_unit_ = std::max<int64_t>(1, kDiskPage / space->slot_bytes());
  TESSERA_ASSIGN_OR_RETURN(space->file_, DiskFile::open(options, path.empty() ? "" : path + ".disk"));
  TESSERA_RETURN_IF_ERROR(space->open_map(path, options_hash));
  space->segments_ = static_cast<uint32_t>(space->file_->bytes() / space->segment_bytes());
  space->find_free_segments();
  return space;
}

Status DiskSpace::open_map(const std::string& path, uint64_t options_hash) {
  int64_t tables = num_shards_ * segments_of_shard() * static_cast<int64_t>(sizeof(uint32_t));
  live_offset_ = rounded_up(kTablesOffset + tables, kDiskPage);
  dirty_offset_ = live_offset_ + num_shards_ * kBitsPerShard;
  int64_t bytes = rounded_up(dirty_offset_ + num_shards_ * kBitsPerShard, Region::kHugePage);
  if (path.empty()) {
    TESSERA_ASSIGN_OR_RETURN(map_, Region::reserve(bytes));
  } else {
    TESSERA_ASSIGN_OR_RETURN(SharedFile file, open_shared_file(path + ".map", bytes));
    map_ = std::move(file.region);
  }
  map_.prefer_small_pages(0, bytes);
  Header& header = *reinterpret_cast<Header*>(map_.data());
  if (header.magic == 0) {
    header = {0, static_cast<uint64_t>(record_bytes_), static_cast<uint64_t>(num_shards_), options_hash};
    std::atomic_thread_fence(std::memory_order_release);
    header.magic = Header::kMagic;
  }
  if (header.magic == Header::kMagic && header.record_bytes == static_cast<uint64_t>(record_bytes_) &&
      header.num_shards == static_cast<uint64_t>(num_shards_) && header.options_hash == options_hash)
    return {};
  return make_error(
      ErrorCode::data_loss,
      "{}.map belongs to rows of {} bytes in {} shards, expected {} bytes in {} and the same row type, "
      "optimizer and initial values; start from a snapshot, or in an empty folder",
      path, header.record_bytes, header.num_shards, record_bytes_, num_shards_);
}

uint32_t* DiskSpace::table(int64_t shard) const {
  return reinterpret_cast<uint32_t*>(map_.data() + kTablesOffset) + shard * segments_of_shard();
}

void DiskSpace::find_free_segments() {
  std::vector<bool> used(segments_);
  const uint32_t* entries = table(0);
  if (segments_ != 0)
    for (int64_t i = 0; i < num_shards_ * segments_of_shard(); ++i)
      if (entries[i] != 0 && entries[i] <= segments_) used[entries[i] - 1] = true;
  for (uint32_t segment = segments_; segment-- > 0;)
    if (!used[segment]) free_.push_back(segment);
}

Result<uint32_t> DiskSpace::take_segment(bool for_compaction) {
  std::lock_guard lock(mutex_);
  size_t kept = for_compaction ? 0 : 1;
  while (free_.size() <= kept) {
    int64_t offset = int64_t{segments_} * segment_bytes();
    if (options_.budget_bytes != 0 && offset + segment_bytes() > options_.budget_bytes)
      return make_error(ErrorCode::resource_exhausted, "{}: the disk budget of {} bytes is used up",
                        file_->name(), options_.budget_bytes);
    TESSERA_RETURN_IF_ERROR(file_->allocate(offset, segment_bytes()));
    free_.insert(free_.begin(), segments_++);
  }
  uint32_t segment = free_.back();
  free_.pop_back();
  return segment;
}

void DiskSpace::give_back(uint32_t segment) {
  std::lock_guard lock(mutex_);
  free_.push_back(segment);
}

int64_t DiskSpace::bytes() const {
  std::lock_guard lock(mutex_);
  return (int64_t{segments_} - static_cast<int64_t>(free_.size())) * segment_bytes();
}

// ---- the slots of a shard ----

DiskRows::DiskRows(DiskSpace& space, int64_t shard)
    : space_(&space),
      slots_per_segment_(static_cast<uint32_t>(space.slots_per_segment())),
      table_(space.table(shard)),
      live_(space.live_bits(shard)),
      dirty_(space.dirty_bits(shard)) {
  for (size_t segment = 0; segment < static_cast<size_t>(space.segments_of_shard()); ++segment) {
    if (table_[segment] == 0) continue;
    live_in_.resize(segment + 1);
    ++used_segments_;
    for (uint32_t k = 0; k < slots_per_segment_; ++k)
      live_in_[segment] += live(static_cast<uint32_t>(segment) * slots_per_segment_ + k) ? 1 : 0;
    num_live_ += live_in_[segment];
  }
}

size_t DiskRows::free_place() {
  size_t place = 0;
  while (place < live_in_.size() && table_[place] != 0) ++place;
  return place;
}

Status DiskRows::take_segments(int64_t count, bool for_compaction, std::vector<size_t>& taken) {
  for (int64_t i = 0; i < count; ++i) {
    size_t place = free_place();
    Result<uint32_t> segment =
        make_error(ErrorCode::resource_exhausted, "{}: a shard has at most {} rows on disk; use more shards",
                   space_->file().name(), DiskSpace::kSlotsOfShard);
    if (place < static_cast<size_t>(space_->segments_of_shard()))
      segment = space_->take_segment(for_compaction);
    if (!segment) {
      for (size_t back : taken) release(back);
      return segment.error();
    }
    if (place == live_in_.size()) live_in_.push_back(0);
    table_[place] = *segment + 1;
    ++used_segments_;
    taken.push_back(place);
  }
  return {};
}

Status DiskRows::append(std::span<const std::byte> records, std::vector<uint32_t>& slots, bool for_compaction) {
  static thread_local PageBuffer buffer;
  const size_t record = static_cast<size_t>(space_->record_bytes()), count = records.size() / record;
  const int64_t per_unit = space_->slots_per_unit(),
                units = (static_cast<int64_t>(count) + per_unit - 1) / per_unit;
  int64_t units_left = open_ == kNone ? 0 : DiskSpace::kSegmentUnits - open_unit_;
  int64_t more = std::max<int64_t>(0, units - units_left);
  std::vector<size_t> fresh;
  TESSERA_RETURN_IF_ERROR(
      take_segments((more + DiskSpace::kSegmentUnits - 1) / DiskSpace::kSegmentUnits, for_compaction, fresh));
  slots.clear();
  size_t next_fresh = 0, segment = open_;
  int64_t unit = open_unit_;
  while (slots.size() < count) {
    if (segment == kNone || unit == DiskSpace::kSegmentUnits) {
      segment = fresh[next_fresh++];
      unit = 0;
    }
    int64_t rest = static_cast<int64_t>(count - slots.size());
    int64_t here = std::min(DiskSpace::kSegmentUnits - unit, (rest + per_unit - 1) / per_unit);
    size_t bytes = static_cast<size_t>(here * space_->unit_bytes());
    std::byte* page = buffer.at_least(bytes);
    std::memset(page, 0, bytes);
    for (int64_t k = 0; k < std::min(rest, here * per_unit); ++k) {
      uint32_t slot =
          static_cast<uint32_t>(segment) * slots_per_segment_ + static_cast<uint32_t>(unit * per_unit + k);
      std::span<const std::byte> from = records.subspan(slots.size() * record, record);
      int64_t offset = offset_of(slot);
      std::byte* to = page + (offset - unit_offset(segment, unit));
      uint64_t hash = hash64(from, static_cast<uint64_t>(offset));
      std::memcpy(to, from.data(), record);
      std::memcpy(to + record, &hash, sizeof hash);
      slots.push_back(slot);
    }
    Status written = space_->file().write(unit_offset(segment, unit), {page, bytes});
    if (!written.ok()) {
      for (size_t back : fresh) release(back);
      return written;
    }
    unit += here;
  }
  open_ = segment;
  open_unit_ = unit;
  return {};
}

void DiskRows::set_live(uint32_t slot, bool dirty) {
  uint64_t bit = uint64_t{1} << slot % 64;
  dirty_[slot / 64] = dirty ? dirty_[slot / 64] | bit : dirty_[slot / 64] & ~bit;
  std::atomic_thread_fence(std::memory_order_release);
  live_[slot / 64] |= bit;
  ++live_in_[slot / slots_per_segment_];
  ++num_live_;
}

void DiskRows::drop(uint32_t slot) {
  live_[slot / 64] &= ~(uint64_t{1} << slot % 64);
  --live_in_[slot / slots_per_segment_];
  --num_live_;
}

uint64_t DiskRows::take_changes(size_t word, bool all) {
  uint64_t changed = live_[word] & (all ? ~uint64_t{0} : dirty_[word]);
  if (dirty_[word] != 0) dirty_[word] = 0;
  return changed;
}

int64_t DiskRows::unit_offset(size_t segment, int64_t unit) const {
  return (int64_t{table_[segment]} - 1) * space_->segment_bytes() + unit * space_->unit_bytes();
}

int64_t DiskRows::offset_of(uint32_t slot) const {
  int64_t within = slot % slots_per_segment_;
  return unit_offset(slot / slots_per_segment_, within / space_->slots_per_unit()) +
         within % space_->slots_per_unit() * space_->slot_bytes();
}

// ---- reads ----

size_t DiskRows::read_bytes() const {
  return static_cast<size_t>(space_->file().direct() ? space_->unit_bytes() : space_->slot_bytes());
}

DiskRead DiskRows::read_of(uint32_t slot, std::byte* into) const {
  int64_t offset = offset_of(slot);
  return {space_->file().direct() ? offset / kDiskPage * kDiskPage : offset, into};
}

const std::byte* DiskRows::record_in(uint32_t slot, const std::byte* read) const {
  return checked(slot, read + (space_->file().direct() ? offset_of(slot) % kDiskPage : 0));
}

const std::byte* DiskRows::checked(uint32_t slot, const std::byte* place) const {
  size_t bytes = static_cast<size_t>(space_->record_bytes());
  uint64_t hash;
  std::memcpy(&hash, place + bytes, sizeof hash);
  return hash == hash64({place, bytes}, static_cast<uint64_t>(offset_of(slot))) ? place : nullptr;
}

Result<const std::byte*> DiskRows::read(uint32_t slot) const {
  static thread_local PageBuffer buffer;
  std::byte* into = buffer.at_least(read_bytes());
  DiskRead wanted = read_of(slot, into);
  TESSERA_RETURN_IF_ERROR(space_->file().read(wanted.offset, {into, read_bytes()}));
  const std::byte* record = record_in(slot, into);
  if (record == nullptr) return damaged(slot);
  return record;
}

Error DiskRows::damaged(uint32_t slot) const {
  return make_error(
      ErrorCode::data_loss,
      "{} has a damaged row at byte {}: its hash is wrong; start from the last snapshot, and look at the "
      "disk",
      space_->file().name(), offset_of(slot));
}

std::byte* DiskRows::segment_buffer() const {
  static thread_local PageBuffer buffer;
  return buffer.at_least(static_cast<size_t>(space_->segment_bytes()));
}

// ---- compaction ----

int64_t DiskRows::wasteful_segment(bool pressed) const {
  bool dense = used_segments_ < 3 || 2 * num_live_ > (used_segments_ - 1) * int64_t{slots_per_segment_};
  if (dense && !pressed) return -1;
  int64_t emptiest = -1;
  for (size_t segment = 0; segment < live_in_.size(); ++segment) {
    if (segment == open_ || table_[segment] == 0) continue;
    if (emptiest < 0 || live_in_[segment] < live_in_[static_cast<size_t>(emptiest)])
      emptiest = static_cast<int64_t>(segment);
  }
  bool enough = emptiest >= 0 && 4 * live_in_[static_cast<size_t>(emptiest)] <= 3 * slots_per_segment_;
  return enough ? emptiest : -1;
}

void DiskRows::release(size_t segment) {
  uint32_t number = table_[segment] - 1;
  table_[segment] = 0;
  --used_segments_;
  space_->give_back(number);
}

}  // namespace tessera::recsys
