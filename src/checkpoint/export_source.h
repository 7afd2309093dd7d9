// What the exports share: where the values come from, the small files beside them, and a target directory that
// appears whole or not at all.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "checkpoint/builder.h"
#include "checkpoint/reader.h"
#include "checkpoint/weight_reader.h"

namespace tessera::checkpoint {

// Error (invalid_argument): `to` is there already.
Status check_target(const std::filesystem::path& to);

// A directory under construction beside `to`; removed unless it was published.
class Workplace {
 public:
  explicit Workplace(const std::filesystem::path& to);
  ~Workplace();
  Workplace(const Workplace&) = delete;
  const std::filesystem::path& path() const { return path_; }
  Status publish() const;

 private:
  std::filesystem::path to_, path_;
};

// The JSON files of a model directory, with config.json's precision changed when `dtype` is given.
Result<TextFiles> side_files(const std::filesystem::path& from, const char* dtype);
Status write_texts(const std::filesystem::path& directory, const TextFiles& texts);

// The tensors of a checkpoint, in the order of its files.
std::vector<TensorSpec> tensors_of(const Manifest& manifest);

// Values in float32: the masters of a checkpoint, their hashes checked, or the weights of any model directory.
class ExportSource {
 public:
  static Result<ExportSource> open(const std::filesystem::path& from);

  // Name and shape alone are set.
  const std::vector<TensorSpec>& tensors() const { return tensors_; }
  Status read(const TensorSpec& tensor, const Extent& box, at::Tensor& out);

 private:
  std::unique_ptr<CheckpointReader> checkpoint_;
  std::optional<WeightReader> weights_;
  std::vector<TensorSpec> tensors_;
};

}  // namespace tessera::checkpoint
