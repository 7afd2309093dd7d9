#include "recsys/row_space.h"

#include <algorithm>
#include <bit>

#include "recsys/shared_file.h"

namespace tessera::recsys {
namespace {

constexpr int64_t kOwnersOffset = 4096;

int64_t whole_pages(int64_t bytes) {
  return (bytes + Region::kHugePage - 1) / Region::kHugePage * Region::kHugePage;
}

}  // namespace

uint32_t RowSpace::rows_of_chunk(int64_t record_bytes) {
  constexpr int64_t kMostBytes = 40 << 10;
  uint64_t rows = static_cast<uint64_t>(std::clamp<int64_t>(kMostBytes / record_bytes, 64, 512));
  return static_cast<uint32_t>(std::bit_floor(rows));
}

void RowSpace::lay_out(int64_t record_bytes, int64_t num_shards, int64_t max_chunks) {
  record_bytes_ = record_bytes;
  chunk_shift_ = std::countr_zero(rows_of_chunk(record_bytes));
  chunk_bytes_ = record_bytes << chunk_shift_;
  live_offset_ = whole_pages(kOwnersOffset + max_chunks * static_cast<int64_t>(sizeof(uint16_t)));
  dirty_offset_ = live_offset_ + num_shards * kBitsPerShard;
  total_bytes_ = whole_pages(dirty_offset_ + num_shards * kBitsPerShard + max_chunks * chunk_bytes_);
}

Result<std::unique_ptr<RowSpace>> RowSpace::create(int64_t record_bytes, int64_t num_shards, int64_t max_bytes,
                                                   const std::string& path, uint64_t options_hash) {
  auto space = std::make_unique<RowSpace>();
  const int64_t chunk_rows = rows_of_chunk(record_bytes);
  int64_t addressable = num_shards * (int64_t{kNoRow} + 1) / chunk_rows;
  int64_t max_chunks = std::min(addressable, max_bytes / (record_bytes * chunk_rows) + num_shards);
  space->lay_out(record_bytes, num_shards, max_chunks);
  if (path.empty()) {
    TESSERA_ASSIGN_OR_RETURN(space->region_, Region::reserve(space->total_bytes_));
  } else {
    TESSERA_ASSIGN_OR_RETURN(SharedFile file, open_shared_file(path, space->total_bytes_));
    space->region_ = std::move(file.region);
  }
  space->region_.prefer_small_pages(0, space->dirty_offset_ + num_shards * kBitsPerShard);
  TESSERA_ASSIGN_OR_RETURN(space->lists_, Region::reserve(num_shards * space->most_chunks_of_shard() *
                                                          static_cast<int64_t>(sizeof(uint32_t))));
  space->lists_.prefer_small_pages(0, space->lists_.bytes());
  std::byte* base = space->region_.data();
  space->owners_ = reinterpret_cast<uint16_t*>(base + kOwnersOffset);
  space->chunks_ = base + space->dirty_offset_ + num_shards * kBitsPerShard;
  Header& header = space->header();
  if (header.magic == 0) {
    header.record_bytes = static_cast<uint64_t>(record_bytes);
    header.num_shards = static_cast<uint64_t>(num_shards);
    header.max_chunks = static_cast<uint64_t>(max_chunks);
    header.options_hash = options_hash;
    std::atomic_thread_fence(std::memory_order_release);
    header.magic = Header::kMagic;
  }
  if (header.magic != Header::kMagic || header.record_bytes != static_cast<uint64_t>(record_bytes) ||
      header.num_shards != static_cast<uint64_t>(num_shards) || header.options_hash != options_hash)
    return make_error(
        ErrorCode::data_loss,
        "{} holds rows of {} bytes in {} shards, expected {} bytes in {} and the same row type, optimizer "
        "and initial values; start from a snapshot, or with an empty file",
        path, header.record_bytes, header.num_shards, record_bytes, num_shards);
  return space;
}

uint32_t RowSpace::take_chunk(int64_t shard) {
  uint64_t number = header().chunks.load(std::memory_order_relaxed);
  do {
    if (number >= header().max_chunks) return kNoRow;
  } while (!header().chunks.compare_exchange_weak(number, number + 1, std::memory_order_relaxed));
  owners_[number] = static_cast<uint16_t>(shard + 1);
  return static_cast<uint32_t>(number);
}

ShardRows::ShardRows(RowSpace& space, int64_t shard)
    : space_(&space),
      shard_(shard),
      record_bytes_(space.record_bytes()),
      live_(space.live_bits(shard)),
      dirty_(space.dirty_bits(shard)),
      chunks_(space.chunks_of(shard)) {}

void ShardRows::adopt_chunk(uint32_t chunk) {
  chunks_[num_chunks_++] = chunk;
  for (uint32_t i = 0; i < space_->chunk_rows(); ++i, ++used_)
    if (!live(used_)) free_.push_back(used_);
}

uint32_t ShardRows::take() {
  if (!free_.empty()) {
    uint32_t row = free_.back();
    free_.pop_back();
    return row;
  }
  if (used_ == kNoRow) return kNoRow;
  if (used_ % space_->chunk_rows() == 0) {
    uint32_t chunk = space_->take_chunk(shard_);
    if (chunk == kNoRow) return kNoRow;
    chunks_[num_chunks_++] = chunk;
  }
  return used_++;
}

}  // namespace tessera::recsys
