#include "recsys/eviction.h"

#include <algorithm>
#include <bit>

namespace tessera::recsys {
namespace {

// Of the index and the bit maps, per row, at the lowest load.
constexpr int64_t kIndexBytes = 8;

// Order of floats as order of unsigned integers.
uint32_t ordered(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

}  // namespace

Eviction::Eviction(const GroupOptions& group, int64_t num_shards) : kind_(group.eviction.kind) {
  if (kind_ == Kind::ttl) ttl_steps_ = group.eviction.ttl_steps;
  if (group.eviction.budget_bytes == 0) return;
  int64_t bytes = RecordLayout(group).bytes + kIndexBytes;
  int64_t rows = group.eviction.budget_bytes / bytes;
  bytes_per_row_ = static_cast<uint64_t>(bytes);
  rows_per_shard_ = static_cast<uint64_t>(std::max<int64_t>(1, rows / num_shards));
}

uint64_t Eviction::rows_per_shard(int64_t disk_bytes) const {
  if (disk_bytes == 0 || rows_per_shard_ == 0) return rows_per_shard_;
  uint64_t taken = static_cast<uint64_t>(disk_bytes) / bytes_per_row_;
  return std::max<uint64_t>(1, rows_per_shard_ - std::min(taken, rows_per_shard_ * 3 / 4));
}

void Eviction::set_score(std::byte* record, float score) const {
  uint32_t word = ordered(score);
  std::memcpy(record + 8, &word, sizeof word);
}

uint32_t Eviction::rank(const std::byte* record, const RowUpdate& update) const {
  return kind_ == Kind::l2_norm ? std::bit_cast<uint32_t>(update.norm_squared(record)) : word_of(record);
}

}  // namespace tessera::recsys
