// The file of a snapshot, full or delta. Little-endian.
//
//   "TessRows", u32 version 1, u32 kind (0 full, 1 delta), u64 series, u64 number, u64 clock, u32 groups, u32
//   bytes of the table; then the table: per group u32 bytes of the name, name, u32 dim, u32 row type, u32
//   optimizer, u32 eviction, u32 record bytes, u32 values offset, u32 state offset; then u64 XXH3 of all before
//   blocks: u32 kind (1 records, 2 removed ids, 3 end), u32 group, u64 count, payload, u64 XXH3 of the block
//   before it
//
// Records are those of row_update.h. Within a file the removed ids of a group's shard stand before its records.
// The end block counts the blocks before it. Series is drawn at the full snapshot; a delta has its number plus
// one.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "recsys/options.h"

namespace tessera::recsys {

struct SnapshotHead {
  bool delta = false;
  uint64_t series = 0, number = 0, clock = 0;
};

class SnapshotWriter {
 public:
  // Writes beside `path`; finish() flushes and renames. Without finish() nothing is left.
  static Result<std::unique_ptr<SnapshotWriter>> create(const std::string& path, const SnapshotHead& head,
                                                        const std::vector<GroupOptions>& groups);
  SnapshotWriter() = default;
  SnapshotWriter(const SnapshotWriter&) = delete;
  SnapshotWriter& operator=(const SnapshotWriter&) = delete;
  ~SnapshotWriter();
  Status add_records(uint32_t group, uint64_t count, std::span<const std::byte> records);
  Status add_removed(uint32_t group, std::span<const uint64_t> ids);
  Status finish();
  int64_t bytes() const { return bytes_; }

 private:
  Status add_block(uint32_t kind, uint32_t group, uint64_t count, std::span<const std::byte> payload);
  Status write(std::span<const std::byte> bytes);

  std::string path_, temporary_;
  int descriptor_ = -1;
  int64_t bytes_ = 0;
  uint64_t blocks_ = 0;
};

struct SnapshotVisitor {
  std::function<Status(uint32_t group, std::span<const std::byte> records)> records;
  std::function<Status(uint32_t group, std::span<const uint64_t> ids)> removed;
};
// Checks every hash on the way; the groups must be those of the store. Errors: not_found, data_loss (torn,
// flipped or cut file, with the offset), invalid_argument (other groups).
Result<SnapshotHead> read_snapshot(const std::string& path, const std::vector<GroupOptions>& groups,
                                   const SnapshotVisitor& visitor);

}  // namespace tessera::recsys
