// Files by descriptor and by memory map, with readable errors. Reads and writes are whole or an error: a short
// read says where the file ended.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <utility>

#include "core/result.h"

namespace tessera::checkpoint {

// An open file that closes itself. Threads: read_at and write_at may run at the same time.
class OpenFile {
 public:
  static Result<OpenFile> for_reading(const std::filesystem::path& path);
  static Result<OpenFile> for_writing(const std::filesystem::path& path);  // must exist
  // A new file with all its blocks reserved, so that a full disk shows here and not half-way.
  static Result<OpenFile> create(const std::filesystem::path& path, int64_t bytes);

  OpenFile(OpenFile&& other) noexcept : number_(std::exchange(other.number_, -1)), path_(other.path_) {}
  OpenFile& operator=(OpenFile&& other) noexcept;
  ~OpenFile();

  Status read_at(int64_t position, std::span<std::byte> out) const;
  Status write_at(int64_t position, std::span<const std::byte> data) const;
  Status sync() const;
  Result<int64_t> bytes() const;
  const std::filesystem::path& path() const { return path_; }

 private:
  OpenFile(int number, std::filesystem::path path) : number_(number), path_(std::move(path)) {}
  static Result<OpenFile> open(const std::filesystem::path& path, int flags, const char* operation);
  int number_ = -1;
  std::filesystem::path path_;
};

// Makes renames and new names in a directory durable.
Status sync_directory(const std::filesystem::path& path);

// A file in memory, read-only. The file must not shrink while it is mapped.
class MappedFile {
 public:
  static Result<MappedFile> open(const std::filesystem::path& path);
  MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  explicit MappedFile(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::span<const std::byte> bytes_;
};

}  // namespace tessera::checkpoint
