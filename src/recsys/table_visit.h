// Table::for_each, for the files that implement Table.
#pragma once

#include <algorithm>
#include <bit>

#include "recsys/prefetch.h"
#include "recsys/table.h"

namespace tessera::recsys {

// Positions of a block in order of their shards, ids of one shard in order of the request.
struct ShardOrder {
  uint16_t positions[Search::kBlock];
  void sort(const Search& search, size_t count, size_t num_shards);
};

// Rows of a block that were read from disk before the block is visited. What it says of a place holds while the
// shard has not given back segments since and the slot is live: a live slot is never written again.
struct DiskReads {
  struct Row {
    uint16_t place;  // in the block
    uint32_t slot;
    uint64_t moves;
    const std::byte* read;
  };
  std::vector<Row> rows;                 // in order of shards
  int16_t first_of[Search::kBlock + 1];  // of each place: its row, or -1
  std::vector<DiskRead> reads;
  PageBuffer buffer;
  // Null where the slot is not what it was; an error where its hash is wrong.
  static Result<const std::byte*> record_of(const Row& row, const DiskShard& shard);
};

// Rows of fetch_ahead(): enough lines for all misses that a core can have under way.
inline size_t Table::fetch_group() const {
  constexpr uint64_t kLines = 96;
  return std::bit_floor(
      std::clamp<size_t>(kLines / static_cast<uint64_t>(update_.layout().bytes / 64 + 2), 4, 32));
}

inline void Table::fetch(const std::byte* record, bool write) const {
  for_each_line(record, write ? update_.layout().bytes : update_.layout().state_offset, prefetch_far);
}

template <class Visit>
Status Table::visit_block(std::span<const uint64_t> ids, size_t first, const float* floats, OnDisk on_disk,
                          const Visit& visit) {
  static thread_local Search found;
  static thread_local ShardOrder order;
  static thread_local std::vector<uint64_t> removals;
  static thread_local DiskReads reads;
  const size_t count = ids.size(), dim = static_cast<size_t>(group_.dim), group = fetch_group();
  const bool changes = tracks_changes_.load(std::memory_order_relaxed);
  removals.resize(shards_.size());
  for (size_t s = 0; s < shards_.size(); ++s)
    removals[s] = shards_[s]->removals.load(std::memory_order_acquire);
  search(found, ids);
  order.sort(found, count, shards_.size());
  if (disk_ != nullptr)
    TESSERA_RETURN_IF_ERROR(on_disk == OnDisk::look ? read_ahead(found, order, count, reads)
                                                    : bring_back(found, order, ids));
  auto prefetch = [&](size_t i) {
    size_t at = order.positions[i];
    if (found.record(at) != nullptr) {
      fetch(found.record(at), true);
      if (changes) shards_[found.shard(at)]->rows.prefetch_dirty(found.row(at));
    }
    if (floats == nullptr) return;
    for_each_line(floats + (first + at) * dim, group_.dim * static_cast<int64_t>(sizeof(float)), prefetch_far);
  };
  std::unique_lock<std::mutex> lock;
  Visitor visitor{};
  for (size_t i = 0; i < count; ++i) {
    fetch_ahead(i, count, group, prefetch);
    size_t at = order.positions[i];
    Shard* shard = shards_[found.shard(at)].get();
    if (shard != visitor.shard || i == 0) {
      if (lock.owns_lock()) lock.unlock();
      lock = std::unique_lock(shard->mutex);
      visitor.shard = shard;
    }
    visitor.position = first + at;
    visitor.id = ids[at];
    visitor.hash = found.hash(at);
    visitor.row = found.row(at);
    visitor.record = found.record(at);
    bool as_found = visitor.record != nullptr && id_of(visitor.record) == visitor.id &&
                    shard->removals.load(std::memory_order_relaxed) == removals[found.shard(at)];
    visitor.on_disk = nullptr;
    if (!as_found) find_record(visitor);
    if (visitor.record == nullptr && disk_ != nullptr)
      TESSERA_RETURN_IF_ERROR(on_disk == OnDisk::look ? look(visitor, reads, at) : bring_back_one(visitor));
    TESSERA_RETURN_IF_ERROR(visit(visitor));
  }
  return {};
}

template <class Visit>
Status Table::for_each(std::span<const uint64_t> ids, const float* floats, OnDisk on_disk, const Visit& visit) {
  for (size_t first = 0; first < ids.size(); first += Search::kBlock) {
    std::span<const uint64_t> block = ids.subspan(first, std::min(Search::kBlock, ids.size() - first));
    TESSERA_RETURN_IF_ERROR(visit_block(block, first, floats, on_disk, visit));
  }
  return {};
}

}  // namespace tessera::recsys
