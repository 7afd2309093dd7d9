// A checkpoint under construction in a temporary directory. One process creates the files whole, with their
// headers and all their blocks; then any number of processes write their boxes in place and note the hash of
// each; at the end one process, which has everybody's notes, checks that nothing is missing and publishes.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/disk.h"
#include "checkpoint/manifest.h"

namespace tessera::checkpoint {

// Extents that one process wrote, by array of the plan.
struct WrittenExtent {
  size_t array = 0;
  HashedExtent extent;
};
std::string to_text(const std::vector<WrittenExtent>& written);
Result<std::vector<WrittenExtent>> parse_written(std::string_view text);

// Makes the directory and its files. Errors: resource_exhausted when the disk cannot hold them.
Status create_files(const std::filesystem::path& directory, const FilePlan& plan);

// One process's share of the writing. Threads: one.
class ExtentWriter {
 public:
  // Opens files of `directory` as they are needed. `extent_bytes`: boxes are cut so that one hash covers no
  // more (but one row at least). REQUIRES: `plan` outlives the writer.
  ExtentWriter(std::filesystem::path directory, const FilePlan& plan, int64_t extent_bytes)
      : directory_(std::move(directory)), plan_(plan), extent_bytes_(extent_bytes) {}

  // Values of a box, row-major. A master writes the weight too, rounded to the working precision (nearest,
  // ties to even).
  Status write(const std::string& tensor, StateKind kind, const Extent& box, std::span<const float> values);
  // The weight alone.
  Status write_weight(const std::string& tensor, const Extent& box, std::span<const float> values);
  // Makes what was written durable.
  Status sync();

  const std::vector<WrittenExtent>& written() const { return written_; }
  int64_t bytes() const { return bytes_; }

 private:
  Status write_content(const std::string& tensor, Content content, const Extent& box,
                       std::span<const float> values);
  Status write_extent(size_t array, const Extent& box, std::span<const float> values);
  Result<const OpenFile*> file(size_t index);

  std::filesystem::path directory_;
  const FilePlan& plan_;
  int64_t extent_bytes_;
  std::map<size_t, OpenFile> files_;
  std::vector<WrittenExtent> written_;
  std::vector<uint16_t> rounded_;
  int64_t bytes_ = 0;
};

// Small files that stand beside the tensors: name and content.
using TextFiles = std::map<std::string, std::string>;

// Writes `texts`, the index and last the manifest, and makes the directory durable. Errors (data_loss): values
// that no one or two wrote.
Status finish_files(const std::filesystem::path& directory, const FilePlan& plan,
                    const std::vector<WrittenExtent>& written, int64_t step, TextFiles texts);

}  // namespace tessera::checkpoint
