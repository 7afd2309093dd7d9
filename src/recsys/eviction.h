// Which rows go when the group's budget is reached. A row keeps one word for its policy (none for l2-norm),
// which training gets refresh; the rows of a shard with the smallest ranks go, a sixteenth of the shard at a
// time, so that one scan serves many new rows.
//
//   lru, ttl   step of the last visit       lfu    number of visits
//   score      set_scores(), 0 at first     l2-norm   sum of squares of the values
#pragma once

#include <cstring>

#include "recsys/row_update.h"

namespace tessera::recsys {

class Eviction {
 public:
  Eviction(const GroupOptions& group, int64_t num_shards);

  // Rows that a shard may hold in memory when its rows on disk keep that many bytes there; 0: no bound.
  uint64_t rows_per_shard(int64_t disk_bytes) const;
  bool tracks_visits() const { return kind_ == Kind::lru || kind_ == Kind::lfu || kind_ == Kind::ttl; }
  void visit(std::byte* record, uint64_t step) const {
    uint32_t word = kind_ == Kind::lfu ? word_of(record) : static_cast<uint32_t>(step);
    if (kind_ == Kind::lfu) word += word != UINT32_MAX;
    std::memcpy(record + 8, &word, sizeof word);
  }
  bool expired(const std::byte* record, uint64_t step) const {
    return ttl_steps_ != 0 && static_cast<uint32_t>(step) - word_of(record) > ttl_steps_ &&
           static_cast<uint32_t>(step) >= word_of(record);
  }
  bool can_expire() const { return ttl_steps_ != 0; }
  bool has_scores() const { return kind_ == Kind::score; }
  void set_score(std::byte* record, float score) const;
  // Smaller goes first.
  uint32_t rank(const std::byte* record, const RowUpdate& update) const;

 private:
  using Kind = EvictionOptions::Kind;
  static uint32_t word_of(const std::byte* record) {
    uint32_t word;
    std::memcpy(&word, record + 8, sizeof word);
    return word;
  }

  Kind kind_;
  uint64_t ttl_steps_ = 0, rows_per_shard_ = 0, bytes_per_row_ = 0;
};

}  // namespace tessera::recsys
