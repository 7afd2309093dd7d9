#include "recsys/snapshot.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/file.h"
#include "core/hash.h"
#include "recsys/row_update.h"

namespace tessera::recsys {
namespace {

constexpr char kMagic[8] = {'T', 'e', 's', 's', 'R', 'o', 'w', 's'};
constexpr uint32_t kVersion = 1, kRecords = 1, kRemoved = 2, kEnd = 3;
constexpr uint64_t kLargestBlock = uint64_t{1} << 32;

struct FixedHead {
  char magic[8];
  uint32_t version, kind;
  uint64_t series, number, clock;
  uint32_t groups, table_bytes;
};
struct BlockHead {
  uint32_t kind, group;
  uint64_t count;
};

template <class T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}
void append(std::string& text, uint32_t value) {
  text.append(reinterpret_cast<const char*>(&value), sizeof value);
}

std::string table_of(const std::vector<GroupOptions>& groups) {
  std::string table;
  for (const GroupOptions& group : groups) {
    RecordLayout layout(group);
    append(table, static_cast<uint32_t>(group.name.size()));
    table += group.name;
    append(table, static_cast<uint32_t>(group.dim));
    append(table, static_cast<uint32_t>(group.row_type));
    append(table, static_cast<uint32_t>(group.optimizer.kind));
    append(table, static_cast<uint32_t>(group.eviction.kind));
    append(table, static_cast<uint32_t>(layout.bytes));
    append(table, static_cast<uint32_t>(layout.values_offset));
    append(table, static_cast<uint32_t>(layout.state_offset));
  }
  return table;
}

std::string head_bytes(const SnapshotHead& head, const std::vector<GroupOptions>& groups) {
  std::string table = table_of(groups);
  FixedHead fixed{.version = kVersion,
                  .kind = head.delta ? 1u : 0u,
                  .series = head.series,
                  .number = head.number,
                  .clock = head.clock,
                  .groups = static_cast<uint32_t>(groups.size()),
                  .table_bytes = static_cast<uint32_t>(table.size())};
  std::memcpy(fixed.magic, kMagic, sizeof kMagic);
  std::string text(reinterpret_cast<const char*>(&fixed), sizeof fixed);
  text += table;
  uint64_t hash = hash64(std::as_bytes(std::span(text)));
  text.append(reinterpret_cast<const char*>(&hash), sizeof hash);
  return text;
}

}  // namespace

Result<std::unique_ptr<SnapshotWriter>> SnapshotWriter::create(const std::string& path,
                                                               const SnapshotHead& head,
                                                               const std::vector<GroupOptions>& groups) {
  auto writer = std::make_unique<SnapshotWriter>();
  writer->path_ = path;
  writer->temporary_ = path + ".part";
  writer->descriptor_ = ::open(writer->temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (writer->descriptor_ < 0) return system_error("create", writer->temporary_, errno);
  std::string text = head_bytes(head, groups);
  TESSERA_RETURN_IF_ERROR(writer->write(std::as_bytes(std::span(text))));
  return writer;
}

SnapshotWriter::~SnapshotWriter() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

Status SnapshotWriter::write(std::span<const std::byte> bytes) {
  for (size_t done = 0; done < bytes.size();) {
    ssize_t count = ::write(descriptor_, bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return system_error("write", temporary_, errno);
    done += static_cast<size_t>(count);
  }
  bytes_ += static_cast<int64_t>(bytes.size());
  return {};
}

Status SnapshotWriter::add_block(uint32_t kind, uint32_t group, uint64_t count,
                                 std::span<const std::byte> payload) {
  BlockHead head{kind, group, count};
  uint64_t hash = hash64(payload, hash64(bytes_of(head)));
  TESSERA_RETURN_IF_ERROR(write(bytes_of(head)));
  TESSERA_RETURN_IF_ERROR(write(payload));
  ++blocks_;
  return write(bytes_of(hash));
}

Status SnapshotWriter::add_records(uint32_t group, uint64_t count, std::span<const std::byte> records) {
  return add_block(kRecords, group, count, records);
}
Status SnapshotWriter::add_removed(uint32_t group, std::span<const uint64_t> ids) {
  return add_block(kRemoved, group, ids.size(), std::as_bytes(ids));
}

Status SnapshotWriter::finish() {
  TESSERA_RETURN_IF_ERROR(add_block(kEnd, 0, blocks_, {}));
  if (::fsync(descriptor_) != 0) return system_error("flush", temporary_, errno);
  ::close(std::exchange(descriptor_, -1));
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) return system_error("rename", temporary_, errno);
  std::filesystem::path folder = std::filesystem::absolute(path_).parent_path();
  int directory = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory >= 0) {
    ::fsync(directory);
    ::close(directory);
  }
  return {};
}

namespace {

class SnapshotReader {
 public:
  SnapshotReader(const std::string& path, const std::vector<GroupOptions>& groups)
      : path_(path), groups_(groups), file_(path, std::ios::binary) {}

  Result<SnapshotHead> run(const SnapshotVisitor& visitor) {
    if (!file_) return system_error("open", path_, errno);
    TESSERA_ASSIGN_OR_RETURN(SnapshotHead head, read_head());
    for (uint64_t blocks = 0;; ++blocks) {
      BlockHead block{};
      if (!take(&block, sizeof block)) return damaged("ends without its end block");
      if (block.kind == kEnd && block.count != blocks) return damaged("lacks blocks");
      TESSERA_RETURN_IF_ERROR(read_block(block, visitor));
      if (block.kind == kEnd) return head;
    }
  }

 private:
  bool take(void* to, size_t bytes) {
    file_.read(static_cast<char*>(to), static_cast<std::streamsize>(bytes));
    offset_ += static_cast<int64_t>(file_.gcount());
    return static_cast<size_t>(file_.gcount()) == bytes;
  }
  Error damaged(const char* what) const {
    return make_error(ErrorCode::data_loss, "{} {} (at byte {}); use an older snapshot", path_, what, offset_);
  }

  Result<SnapshotHead> read_head() {
    FixedHead fixed{};
    if (!take(&fixed, sizeof fixed) || std::memcmp(fixed.magic, kMagic, sizeof kMagic) != 0)
      return damaged("is no snapshot of embedding rows");
    if (fixed.version != kVersion)
      return invalid("{} has version {} of the format, expected {}", path_, fixed.version, kVersion);
    constexpr uint32_t kMostTableBytes = 1 << 24;
    std::string table(std::min(fixed.table_bytes, kMostTableBytes), '\0');
    uint64_t hash = 0;
    if (!take(table.data(), table.size()) || !take(&hash, sizeof hash)) return damaged("is cut short");
    std::string text(reinterpret_cast<const char*>(&fixed), sizeof fixed);
    text += table;
    if (hash != hash64(std::as_bytes(std::span(text)))) return damaged("has a damaged head");
    if (table != table_of(groups_))
      return invalid(
          "{} was written by a store with other groups: names, dims, row types, optimizers and evictions "
          "must be the same, in the same order",
          path_);
    return SnapshotHead{fixed.kind == 1, fixed.series, fixed.number, fixed.clock};
  }

  Status read_block(const BlockHead& block, const SnapshotVisitor& visitor) {
    if (block.kind < kRecords || block.kind > kEnd || block.group >= groups_.size())
      return damaged("has a block of unknown kind");
    uint64_t unit = block.kind == kEnd       ? 0
                    : block.kind == kRemoved ? sizeof(uint64_t)
                                             : static_cast<uint64_t>(RecordLayout(groups_[block.group]).bytes);
    if (unit != 0 && block.count > kLargestBlock / unit) return damaged("has a block of impossible size");
    payload_.resize(block.count * unit);
    uint64_t hash = 0;
    if (!take(payload_.data(), payload_.size()) || !take(&hash, sizeof hash)) return damaged("is cut short");
    if (hash != hash64(payload_, hash64(bytes_of(block)))) return damaged("has a block with a wrong hash");
    if (block.kind == kEnd) return {};
    if (block.kind == kRecords) return visitor.records(block.group, payload_);
    std::vector<uint64_t> ids(block.count);
    std::memcpy(ids.data(), payload_.data(), payload_.size());
    return visitor.removed(block.group, ids);
  }

  const std::string& path_;
  const std::vector<GroupOptions>& groups_;
  std::ifstream file_;
  int64_t offset_ = 0;
  std::vector<std::byte> payload_;
};

}  // namespace

Result<SnapshotHead> read_snapshot(const std::string& path, const std::vector<GroupOptions>& groups,
                                   const SnapshotVisitor& visitor) {
  return SnapshotReader(path, groups).run(visitor);
}

}  // namespace tessera::recsys
