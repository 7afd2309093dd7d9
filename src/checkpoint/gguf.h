// GGUF, the file of llama.cpp (versions 2 and 3, little endian): magic "GGUF", version, counts of tensors and
// of metadata, the metadata (key, type, value), the tensors' names, shapes, types and offsets, then their data
// at a multiple of general.alignment. Written down in ggml's docs/gguf.md.
//
// A file from elsewhere may be torn or hostile: every count, length and offset is checked against the size of
// the file before it is used. Threads: const after open(). Errors: not_found, data_loss (torn, wrong magic),
// invalid_argument (a version or a type of elements that we do not read; names those that we do).
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "checkpoint/disk.h"
#include "checkpoint/gguf_blocks.h"

namespace tessera::checkpoint {

struct GgufTensor {
  GgufType type = GgufType::f32;
  std::vector<int64_t> shape;  // as Hugging Face has it: the contiguous dimension last
  int64_t begin = 0;           // of its data in the file

  int64_t width() const { return shape.back(); }
  int64_t elements() const;
  int64_t row_bytes() const { return width() / block_elements(type) * block_bytes(type); }
};

class GgufFile {
 public:
  static bool is_at(const std::filesystem::path& path);  // a regular file that begins with the magic, or .gguf
  static Result<GgufFile> open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  // Key -> value; strings may hold any bytes.
  const nlohmann::json& metadata() const { return metadata_; }
  const std::map<std::string, GgufTensor>& tensors() const { return tensors_; }
  const GgufTensor* find(const std::string& name) const;
  // Row `row` of all but the last dimension taken together.
  std::span<const uint8_t> row(const GgufTensor& tensor, int64_t row) const;

 private:
  GgufFile(std::filesystem::path path, MappedFile file) : path_(std::move(path)), file_(std::move(file)) {}
  std::filesystem::path path_;
  MappedFile file_;
  nlohmann::json metadata_ = nlohmann::json::object();
  std::map<std::string, GgufTensor> tensors_;
};

}  // namespace tessera::checkpoint
