// What a table does with the ids of a request: the search, the order of visits, and get.
#include <numeric>

#include "recsys/table_visit.h"

namespace tessera::recsys {

void ShardOrder::sort(const Search& search, size_t count, size_t num_shards) {
  static thread_local std::vector<uint32_t> starts;
  starts.assign(num_shards + 1, 0);
  for (size_t i = 0; i < count; ++i) ++starts[search.shard(i) + 1u];
  for (size_t s = 1; s < starts.size(); ++s) starts[s] += starts[s - 1];
  for (size_t i = 0; i < count; ++i) positions[starts[search.shard(i)]++] = static_cast<uint16_t>(i);
}

void Table::search(Search& search, std::span<const uint64_t> ids) const {
  search.run(ids, shard_bits_, heads_.get(), buckets_->base(), *space_);
}

void Table::find_record(Visitor& visitor) {
  const Shard& shard = *visitor.shard;
  auto same = [&](uint32_t row) { return id_of(shard.rows.record(row)) == visitor.id; };
  visitor.row = shard.index.find(index_hash(visitor.hash), Index::tag_of(visitor.hash), same);
  visitor.record = visitor.row == kNoRow ? nullptr : shard.rows.record(visitor.row);
}

// Copies the rows that were found, and lists the places of the others: no record, another id's, one that has
// expired or was being written. Nothing in the loop waits or is called, so that copies of many rows overlap.
size_t Table::copy_unlocked(const Search& found, std::span<const uint64_t> ids, const Reading& reading,
                            float* out, uint16_t* missed) const {
  const size_t count = ids.size(), dim = static_cast<size_t>(group_.dim), group = fetch_group();
  const int64_t lines = (update_.layout().state_offset + 63) / 64;  // before the last byte's
  const int64_t last_byte = update_.layout().state_offset - 1;
  auto prefetch = [&](size_t i) {
    const std::byte* record = found.record(i);
    if (record == nullptr) return;
    for (int64_t line = 0; line < lines; ++line) prefetch_far(record + 64 * line);
    prefetch_far(record + last_byte);
  };
  const uint64_t now = reading.now;
  size_t num_missed = 0;
  for (size_t i = 0; i < count; ++i) {
    fetch_ahead(i, count, group, prefetch);
    const std::byte* record = found.record(i);
    const RowVersions& versions = versions_[found.shard(i)];
    const uint32_t row = found.row(i), version = versions.begin_read(row);
    missed[num_missed] = static_cast<uint16_t>(i);
    if (record == nullptr || version % 2 != 0 || id_of(record) != ids[i] || eviction_.expired(record, now)) {
      ++num_missed;
      continue;
    }
    update_.read(record, out + i * dim);
    num_missed += versions.unchanged(row, version) ? 0 : 1;
  }
  return num_missed;
}

Status Table::read_block(std::span<const uint64_t> ids, size_t first, const Reading& reading) {
  static thread_local Search found;
  static thread_local ShardOrder order;
  static thread_local DiskReads reads;
  const bool train = reading.access == Access::train;
  const size_t count = ids.size(), dim = static_cast<size_t>(group_.dim);
  search(found, ids);
  if (disk_ != nullptr) {
    order.sort(found, count, shards_.size());
    TESSERA_RETURN_IF_ERROR(train ? bring_back(found, order, ids) : read_ahead(found, order, count, reads));
  }
  uint16_t missed[Search::kBlock + 1];
  size_t num_missed = count;
  if (RowVersions::kReadersLock)
    std::iota(missed, missed + count, uint16_t{0});
  else
    num_missed = copy_unlocked(found, ids, reading, reading.rows + first * dim, missed);
  for (uint16_t i : std::span(missed).first(num_missed)) {
    Shard& shard = *shards_[found.shard(i)];
    std::lock_guard lock(shard.mutex);
    Visitor visitor{.position = first + i, .id = ids[i], .hash = found.hash(i), .shard = &shard};
    find_record(visitor);
    if (visitor.record == nullptr && disk_ != nullptr)
      TESSERA_RETURN_IF_ERROR(train ? bring_back_one(visitor) : look(visitor, reads, i));
    TESSERA_RETURN_IF_ERROR(visit_for_get(visitor, reading));
  }
  return {};
}

Status Table::visit_for_get(Visitor& visitor, const Reading& reading) {
  const bool train = reading.access == Access::train;
  Shard& shard = *visitor.shard;
  if (visitor.record != nullptr && eviction_.expired(visitor.record, reading.now)) {
    if (train) drop_expired(visitor, reading.now);
    visitor.record = nullptr;
  }
  const bool found = visitor.record != nullptr;
  if (!found && train) {
    bool admitted = shard.admission.admit(visitor.id, reading.now);
    shard.stats.refused += admitted ? 0 : 1;
    if (admitted) TESSERA_RETURN_IF_ERROR(make_row(visitor, reading.now));
  }
  float* out = reading.rows + visitor.position * static_cast<size_t>(group_.dim);
  const std::byte* record = visitor.record;
  if (visitor.on_disk != nullptr && !eviction_.expired(visitor.on_disk, reading.now)) record = visitor.on_disk;
  if (record == nullptr) {
    bool as_first_get = !train && group_.admission.kind == AdmissionOptions::Kind::all;
    if (as_first_get)
      update_.initial_values(visitor.id, out);
    else
      std::fill_n(out, group_.dim, 0.0f);
    return {};
  }
  if (train && found && eviction_.tracks_visits()) {
    touch(shard, visitor.row);
    RowVersions::Writing writing(shard.versions, visitor.row);
    eviction_.visit(visitor.record, reading.now);
  }
  update_.read(record, out);
  return {};
}

Status Table::get(std::span<const uint64_t> ids, float* rows, Access access, uint64_t now) {
  Reading reading{rows, access, now};
  if (access == Access::train && eviction_.tracks_visits())
    return for_each(ids, rows, OnDisk::bring_back,
                    [&](Visitor& visitor) { return visit_for_get(visitor, reading); });
  for (size_t first = 0; first < ids.size(); first += Search::kBlock)
    TESSERA_RETURN_IF_ERROR(
        read_block(ids.subspan(first, std::min(Search::kBlock, ids.size() - first)), first, reading));
  return {};
}

}  // namespace tessera::recsys
