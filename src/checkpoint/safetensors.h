// The safetensors file: 8 bytes with the length of a JSON header (little endian), the header
//   {"NAME": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, "__metadata__": {"format": "pt"}}
// and the tensors, row-major and little endian, one after the other without holes. A file from elsewhere may be
// torn or hostile, so everything the header says is checked before a byte of a tensor is touched.
#pragma once

#include <c10/core/ScalarType.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/disk.h"
#include "core/result.h"

namespace tessera::checkpoint {

// Beside several files of a model: which file holds which tensor.
inline constexpr const char* kIndexFile = "model.safetensors.index.json";

struct StoredTensor {
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> shape;
  int64_t begin = 0, end = 0;  // bytes from the start of the file

  int64_t elements() const;
};

// Name of a type in headers ("F32", "BF16", ...), and back. Errors: types that torch does not have, or smaller
// than a byte.
Result<std::string> stored_name(at::ScalarType dtype);
Result<at::ScalarType> parse_stored_name(const std::string& name);

struct SafetensorsHeader {
  std::map<std::string, StoredTensor> tensors;
  std::map<std::string, std::string> metadata;
  int64_t data_begin = 0;  // first byte after the header
};

// `head` holds at least the first bytes up to the end of the header; `file_bytes` is the size of the file.
// Errors (data_loss): truncated, not JSON, a name twice, sizes that disagree with shape and type, overlaps,
// holes, ends beyond the file.
Result<SafetensorsHeader> parse_safetensors_header(std::span<const std::byte> head, int64_t file_bytes);

// Where `tensors` (begin and end are ignored) will lie, in the order given, and the header that says so,
// padded with spaces so that the data starts at a multiple of 64 bytes. Pure: every rank computes the same.
struct SafetensorsPlan {
  std::string head;  // length and header
  std::vector<StoredTensor> tensors;
  int64_t file_bytes = 0;
};
Result<SafetensorsPlan> plan_safetensors(const std::vector<std::pair<std::string, StoredTensor>>& tensors);

// A file of this kind, mapped into memory. Threads: const after open().
class SafetensorsFile {
 public:
  static Result<SafetensorsFile> open(const std::filesystem::path& path);

  const SafetensorsHeader& header() const { return header_; }
  const StoredTensor* find(const std::string& name) const;  // null: not there
  std::span<const std::byte> bytes(const StoredTensor& tensor) const;
  std::span<const std::byte> all_bytes() const { return file_.bytes(); }
  const std::filesystem::path& path() const { return path_; }

 private:
  SafetensorsFile(std::filesystem::path path, MappedFile file, SafetensorsHeader header)
      : path_(std::move(path)), file_(std::move(file)), header_(std::move(header)) {}
  std::filesystem::path path_;
  MappedFile file_;
  SafetensorsHeader header_;
};

}  // namespace tessera::checkpoint
