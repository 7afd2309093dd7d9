// Where the rows of many ids are, found without locks and with many cache misses on their way at once: first
// every id's bucket is fetched, then the buckets are searched, and ids whose bucket was full go on to the next
// one together. What is found may be gone by the time it is used: the id lies in the record.
//
// Threads: a Search belongs to one thread; writers may be at work on the shards.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "recsys/hash.h"
#include "recsys/index.h"
#include "recsys/prefetch.h"
#include "recsys/row_space.h"

namespace tessera::recsys {

// What a search reads of a shard. Those of all shards lie together, so that they stay in the first cache.
struct ShardHead {
  std::atomic<uint64_t> index{0};    // Index::view_of
  const uint32_t* chunks = nullptr;  // RowSpace::chunks_of
};

class Search {
 public:
  // Ids of one block. Small enough that the rows of a block (1024 x 64 bytes) stay in the second cache.
  static constexpr size_t kBlock = 1024;

  // `heads`: of 2^shard_bits shards.
  void run(std::span<const uint64_t> ids, int shard_bits, const ShardHead* heads, const Bucket* buckets,
           const RowSpace& rows);

  // Of ids[i] after run().

  uint64_t hash(size_t i) const { return hashes_[i]; }
  uint32_t shard(size_t i) const { return shards_[i]; }
  uint32_t row(size_t i) const { return rows_[i]; }          // most probable row, or kNoRow
  std::byte* record(size_t i) const { return records_[i]; }  // of that row, or null

 private:
  static constexpr size_t kGroup = 32;  // of fetch_ahead()
  struct Late {
    uint32_t place;
    Index::View view;
    const Bucket* bucket;
  };
  void search_further();
  bool search_one(size_t i, const Bucket& bucket);

  uint64_t hashes_[kBlock];
  uint16_t shards_[kBlock];
  uint32_t rows_[kBlock];
  std::byte* records_[kBlock];
  std::vector<Late> late_;
};

// True when the search of this id has ended.
inline bool Search::search_one(size_t i, const Bucket& bucket) {
  uint32_t found = bucket.matches(Index::tag_of(hashes_[i]));
  rows_[i] = found != 0 ? bucket.row(__builtin_ctz(found)) : kNoRow;
  return found != 0 || bucket.passed == 0;
}

inline void Search::search_further() {
  // Few go further than two buckets, one in 500 further than eight; who would is asked for again under the
  // lock.
  constexpr int kRounds = 32;
  for (int round = 0; round < kRounds && !late_.empty(); ++round) {
    size_t kept = 0;
    for (const Late& late : late_) {
      if (search_one(late.place, *late.bucket)) continue;
      late_[kept++] = {late.place, late.view, late.view.after(late.bucket)};
      prefetch_far(late_[kept - 1].bucket);
    }
    late_.resize(kept);
  }
}

inline void Search::run(std::span<const uint64_t> ids, int shard_bits, const ShardHead* heads,
                        const Bucket* buckets, const RowSpace& rows) {
  auto view_of = [&](size_t shard) { return Index::view_of(buckets, heads[shard].index); };
  const size_t count = ids.size();
  const Bucket* homes[kBlock];
  late_.clear();
  for (size_t i = 0; i < count; ++i) {
    uint64_t hash = mix64(ids[i]);
    hashes_[i] = hash;
    shards_[i] = static_cast<uint16_t>(shard_bits == 0 ? 0 : hash >> (64 - shard_bits));
    homes[i] = view_of(shards_[i]).home(hash << shard_bits);
  }
  for (size_t i = 0; i < count; ++i) {
    fetch_ahead(i, count, kGroup, [&](size_t next) { prefetch_far(homes[next]); });
    const Bucket* home = homes[i];
    if (search_one(i, *home)) continue;
    Index::View view = view_of(shards_[i]);
    if (home < view.buckets || home >= view.buckets + view.count) continue;  // the index has moved on
    late_.push_back({static_cast<uint32_t>(i), view, view.after(home)});
    prefetch_far(late_.back().bucket);
  }
  search_further();
  // Apart, so that no prefetch waits for the tables behind an address.
  for (size_t i = 0; i < count; ++i)
    records_[i] = rows_[i] == kNoRow ? nullptr : rows.record(heads[shards_[i]].chunks, rows_[i]);
}

}  // namespace tessera::recsys
