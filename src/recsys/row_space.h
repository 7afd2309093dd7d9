// Records of one group, in one stretch of memory. A shard takes chunks of rows as it grows, so rows of all
// shards lie densely, no row has an allocation of its own, and a row never moves while it lives. A chunk has 64
// to 512 rows, 40 KiB at most where that can be: the last chunk of each shard is half empty, and longer rows
// would leave more of it.
//
//   0                     header: one page
//   kOwnersOffset         u16 per chunk: 1 + the shard that owns it, 0 not taken
//   live_offset           per shard 2^24 bits: the row holds a record
//   dirty_offset          per shard 2^24 bits: changed since the last snapshot
//   chunks_offset         chunks of rows_of_chunk(bytes of a record) records
//
// Only pages that are touched exist. The same bytes in a shared file are all that a new process needs.
// Threads: a shard's rows belong to whoever holds the shard; different shards may grow at once.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "recsys/index.h"
#include "recsys/prefetch.h"
#include "recsys/region.h"

namespace tessera::recsys {

class ShardRows;

class RowSpace {
 public:
  static constexpr int64_t kBitsPerShard = (int64_t{1} << 24) / 8;  // bytes of one bit map

  struct Header {
    static constexpr uint64_t kMagic = 0x3230776f72736354;  // "Tcsrow02"
    uint64_t magic, record_bytes, num_shards, max_chunks, options_hash;
    std::atomic<uint64_t> chunks;  // taken so far
  };

  // Private memory for at most `max_bytes` of records (address space, not memory); or, with a path, the pages
  // of that file, with the rows that it holds. `options_hash` must be that of the file.
  static Result<std::unique_ptr<RowSpace>> create(int64_t record_bytes, int64_t num_shards, int64_t max_bytes,
                                                  const std::string& path = "", uint64_t options_hash = 0);

  // A row of the shard whose chunks these are.
  std::byte* record(const uint32_t* chunks, uint32_t row) const {
    int64_t place =
        (static_cast<int64_t>(chunks[row >> chunk_shift_]) << chunk_shift_) + (row & (chunk_rows() - 1));
    return chunks_ + place * record_bytes_;
  }
  std::byte* chunk(uint32_t number) const { return chunks_ + static_cast<int64_t>(number) * chunk_bytes_; }
  uint32_t take_chunk(int64_t shard);  // kNoRow when there is no more room
  uint16_t* owners() const { return owners_; }
  uint64_t* live_bits(int64_t shard) const { return bits(live_offset_, shard); }
  uint64_t* dirty_bits(int64_t shard) const { return bits(dirty_offset_, shard); }
  // The chunks of a shard in order: numbers for every row below kNoRow, 0 where there is none yet.
  uint32_t* chunks_of(int64_t shard) const {
    return reinterpret_cast<uint32_t*>(lists_.data()) + shard * most_chunks_of_shard();
  }
  Header& header() const { return *reinterpret_cast<Header*>(region_.data()); }
  int64_t record_bytes() const { return record_bytes_; }
  static uint32_t rows_of_chunk(int64_t record_bytes);  // a power of two, from 64 to 512
  uint32_t chunk_rows() const { return uint32_t{1} << chunk_shift_; }

 private:
  int64_t most_chunks_of_shard() const { return (int64_t{kNoRow} + 1) >> chunk_shift_; }
  uint64_t* bits(int64_t offset, int64_t shard) const {
    return reinterpret_cast<uint64_t*>(region_.data() + offset + shard * kBitsPerShard);
  }
  void lay_out(int64_t record_bytes, int64_t num_shards, int64_t max_chunks);

  Region region_, lists_;
  int chunk_shift_ = 0;
  int64_t record_bytes_ = 0, chunk_bytes_ = 0, live_offset_ = 0, dirty_offset_ = 0, total_bytes_ = 0;
  uint16_t* owners_ = nullptr;
  std::byte* chunks_ = nullptr;
};

// The rows of one shard, numbered from 0.
class ShardRows {
 public:
  ShardRows(RowSpace& space, int64_t shard);
  // Takes over a chunk that the shard had before this process; the rows that are not live are free.
  void adopt_chunk(uint32_t chunk);
  // Any number below kNoRow gives readable memory, so that a reader beside a writer may ask first and check the
  // id afterwards.
  std::byte* record(uint32_t row) const { return space_->record(chunks_, row); }
  // A row that is not live, or kNoRow. The caller writes the record, then calls set_live().
  uint32_t take();
  void set_live(uint32_t row) {
    std::atomic_thread_fence(
        std::memory_order_release);  // a process that dies here leaves a whole record or none
    live_[row / 64] |= uint64_t{1} << row % 64;
  }
  bool live(uint32_t row) const { return (live_[row / 64] >> row % 64 & 1) != 0; }
  void give_back(uint32_t row) {
    live_[row / 64] &= ~(uint64_t{1} << row % 64);
    free_.push_back(row);
  }
  void mark_dirty(uint32_t row) {
    uint64_t bit = uint64_t{1} << row % 64;
    if ((dirty_[row / 64] & bit) == 0)
      dirty_[row / 64] |= bit;  // most are dirty already: no line to write back
  }
  bool dirty(uint32_t row) const { return (dirty_[row / 64] >> row % 64 & 1) != 0; }
  void mark_clean(uint32_t row) {
    if (dirty(row)) dirty_[row / 64] &= ~(uint64_t{1} << row % 64);
  }
  // The rows of 64 that are live and, unless `all`, changed since the last call; from now on unchanged.
  uint64_t take_changes(size_t word, bool all) {
    uint64_t changed = live_[word] & (all ? ~uint64_t{0} : dirty_[word]);
    dirty_[word] = 0;
    return changed;
  }
  void prefetch_dirty(uint32_t row) const { prefetch_far(dirty_ + row / 64); }
  uint32_t end() const { return used_; }  // every live row is below
  int64_t bytes() const { return num_chunks_ * space_->chunk_rows() * record_bytes_; }
  template <class Visit>
  void for_each_live(const Visit& visit) const;  // visit(row), ascending

 private:
  RowSpace* space_;
  int64_t shard_, record_bytes_;
  uint64_t *live_, *dirty_;
  uint32_t* chunks_;
  int64_t num_chunks_ = 0;
  uint32_t used_ = 0;
  std::vector<uint32_t> free_;
};

template <class Visit>
void ShardRows::for_each_live(const Visit& visit) const {
  for (uint32_t word = 0; word * 64 < used_; ++word)
    for (uint64_t bits = live_[word]; bits != 0; bits &= bits - 1)
      visit(word * 64 + static_cast<uint32_t>(__builtin_ctzll(bits)));
}

}  // namespace tessera::recsys
