// Table::for_each, for the files that implement Table.
#pragma once

#include <algorithm>

#include "recsys/prefetch.h"
#include "recsys/table.h"

namespace tessera::recsys {

// Positions of a block in order of their shards, ids of one shard in order of the request.
struct ShardOrder {
  uint16_t positions[Search::kBlock];
  void sort(const Search& search, size_t count, size_t num_shards);
};

// Lines of a record on their way at once: enough for all misses that a core can have under way.
inline size_t Table::fetch_distance() const {
  constexpr int64_t kLines = 64;
  return static_cast<size_t>(std::clamp<int64_t>(kLines / (update_.layout().bytes / 64 + 2), 4, 32));
}

inline void Table::fetch(const Shard& shard, uint32_t row, bool write) const {
  const std::byte* record = shard.rows.record(row);
  auto line = reinterpret_cast<uintptr_t>(record) / 64 * 64;
  uintptr_t end =
      reinterpret_cast<uintptr_t>(record) +
      static_cast<uintptr_t>(write ? update_.layout().bytes : update_.layout().state_offset);
  for (; line < end; line += 64) prefetch_far(reinterpret_cast<const void*>(line));
}

template <class Visit>
void Table::visit_block(std::span<const uint64_t> ids, size_t first, const float* floats, const Visit& visit) {
  static thread_local Search found;
  static thread_local ShardOrder order;
  static thread_local std::vector<uint64_t> removals;
  const size_t count = ids.size(), dim = static_cast<size_t>(group_.dim), ahead = fetch_distance();
  removals.resize(shards_.size());
  for (size_t s = 0; s < shards_.size(); ++s)
    removals[s] = shards_[s]->removals.load(std::memory_order_acquire);
  search(found, ids);
  order.sort(found, count, shards_.size());
  auto prefetch = [&](size_t i) {
    size_t at = order.positions[i];
    const Shard& shard = *shards_[found.shard(at)];
    if (found.row(at) != kNoRow) {
      fetch(shard, found.row(at), true);
      shard.rows.prefetch_dirty(found.row(at));
    }
    if (floats == nullptr) return;
    for (size_t j = 0; j < dim; j += 16) prefetch_near(floats + (first + at) * dim + j);
  };
  for (size_t i = 0; i < std::min(ahead, count); ++i) prefetch(i);
  std::unique_lock<std::mutex> lock;
  Visitor visitor{};
  for (size_t i = 0; i < count; ++i) {
    if (i + ahead < count) prefetch(i + ahead);
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
    visitor.record = visitor.row == kNoRow ? nullptr : shard->rows.record(visitor.row);
    bool as_found = visitor.record != nullptr && id_of(visitor.record) == visitor.id &&
                    shard->removals.load(std::memory_order_relaxed) == removals[found.shard(at)];
    if (!as_found) find_record(visitor);
    visit(visitor);
  }
}

template <class Visit>
void Table::for_each(std::span<const uint64_t> ids, const float* floats, const Visit& visit) {
  for (size_t first = 0; first < ids.size(); first += Search::kBlock)
    visit_block(ids.subspan(first, std::min(Search::kBlock, ids.size() - first)), first, floats, visit);
}

}  // namespace tessera::recsys
