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

inline void Table::fetch(const std::byte* record, bool write) const {
  for_each_line(record, write ? update_.layout().bytes : update_.layout().state_offset, prefetch_far);
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
    if (found.record(at) != nullptr) {
      fetch(found.record(at), true);
      shards_[found.shard(at)]->rows.prefetch_dirty(found.row(at));
    }
    if (floats == nullptr) return;
    for_each_line(floats + (first + at) * dim, group_.dim * static_cast<int64_t>(sizeof(float)), prefetch_far);
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
    visitor.record = found.record(at);
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
