// Lines of a file, plain or gzip, in large pieces that hold whole lines only. A part of a plain file can be
// read: lines that start within [begin, end), so neighbouring parts share no line and lose none.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "core/result.h"

namespace tessera::recsys_data {

struct ByteRange {
  int64_t begin = 0;
  int64_t end = -1;  // -1: to the end of the file
};

// Threads: one.
class TextInput {
 public:
  virtual ~TextInput() = default;
  // Errors: of the file system, with the path; a range of a gzip file; a damaged gzip file.
  static Result<std::unique_ptr<TextInput>> open(const std::filesystem::path& path, ByteRange range = {});

  // The next lines, each with its '\n' (added to the last one of the file where it has none); empty at the end.
  // Readable for kScanPadding bytes more; valid until the next call.
  virtual Result<std::string_view> next() = 0;
  // "FILE:LINE" of a byte within the piece last returned. Counts lines from the start of the file: for errors.
  virtual std::string where(const char* at) const = 0;
};

// Bytes of a plain file; an error for one that is not there.
Result<int64_t> file_bytes(const std::filesystem::path& path);
bool is_gzip(const std::filesystem::path& path);  // by its name: ".gz"

}  // namespace tessera::recsys_data
