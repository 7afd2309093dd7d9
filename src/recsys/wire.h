// Ids and rows in few bytes. Raw, a get of n rows moves 8 n bytes of ids and 4 n dim bytes of rows; here ids
// are sorted, and only their differences travel, and rows as fp16, bf16, or int8 with one scale per block of
// values.
//
//   PackedIds ids = pack_ids(sorted);            // sorted and distinct: sort_ids() gives order and places
//   pack_rows(rows, dim, {.type = RowType::i8}, bytes);
//   ErrorFeedback feedback(dim);                 // gradients: what rounding took from an id is added the next
//   time feedback.pack(ids, gradients, options, bytes);
//
// Formats, little-endian:
//   ids    u32 count, u64 first id, then blocks of 128 differences less one: u8 width in bits (0 to 64), and
//   the
//          differences in that many bits each, lowest bit first, padded to bytes at the end of the block
//   rows   u8 row type, u32 values; i8: per block of 32 values float32 scale and bytes; else two bytes a value
// Threads: functions any; one ErrorFeedback one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "recsys/options.h"

namespace tessera::recsys {

struct SortedIds {
  std::vector<uint64_t> ids;     // ascending, distinct
  std::vector<uint32_t> places;  // of each id of the request among them
};
SortedIds sort_ids(std::span<const uint64_t> ids);

// Appends. REQUIRES: ascending and distinct.
void pack_ids(std::span<const uint64_t> ids, std::vector<std::byte>& out);
// Reads from the front of `in` and moves it on. Errors: data_loss for bytes that pack_ids() did not write.
Result<std::vector<uint64_t>> unpack_ids(std::span<const std::byte>& in);

struct WireOptions {
  RowType type = RowType::f16;  // f32: as they are
};
// Appends. int8 rounds to nearest within blocks of 32 values, so one large value spoils only its neighbours.
void pack_rows(std::span<const float> values, const WireOptions& options, std::vector<std::byte>& out);
Result<std::vector<float>> unpack_rows(std::span<const std::byte>& in);

// Gradients with memory of what the wire lost: for each id, what was packed so far and what is kept here add up
// to what was given (Seide et al. 2014). Ids beyond `most_ids` start without memory: the oldest half is let go.
class ErrorFeedback {
 public:
  explicit ErrorFeedback(int64_t dim, size_t most_ids = 1 << 20)
      : dim_(static_cast<size_t>(dim)), most_ids_(most_ids) {}
  void pack(std::span<const uint64_t> ids, std::span<const float> gradients, const WireOptions& options,
            std::vector<std::byte>& out);
  // What is owed to an id; zeros when nothing.
  std::vector<float> owed(uint64_t id) const;

 private:
  void make_room();

  size_t dim_, most_ids_;
  uint64_t packs_ = 0;
  struct Debt {
    uint64_t pack = 0;
    std::vector<float> values;
  };
  std::unordered_map<uint64_t, Debt> debts_;
};

}  // namespace tessera::recsys
