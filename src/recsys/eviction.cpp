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
  int64_t rows = group.eviction.budget_bytes / (RecordLayout(group).bytes + kIndexBytes);
  rows_per_shard_ = static_cast<uint64_t>(std::max<int64_t>(1, rows / num_shards));
}

void Eviction::set_score(std::byte* record, float score) const {
  uint32_t word = ordered(score);
  std::memcpy(record + 8, &word, sizeof word);
}

uint32_t Eviction::rank(const std::byte* record, const RowUpdate& update) const {
  return kind_ == Kind::l2_norm ? std::bit_cast<uint32_t>(update.norm_squared(record)) : word_of(record);
}

}  // namespace tessera::recsys
