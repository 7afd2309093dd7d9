// The weights of a model directory as Hugging Face writes it: model.safetensors, or shards that
// model.safetensors.index.json lists. Any rank reads any box of any tensor, converted on the way, so no rank
// ever holds a whole model.
//
//   TESSERA_ASSIGN_OR_RETURN(auto weights, WeightReader::open(directory));
//   TESSERA_RETURN_IF_ERROR(weights.check_against(inventory(model)));
//   TESSERA_ASSIGN_OR_RETURN(at::Tensor q, weights.read(name, tp_extent(tensor, tp, place, blocks),
//   at::kFloat));
//
// A checkpoint of ours is such a directory too: what is read of it is checked against the hashes of its
// manifest. So is a packed model (packed.h), whose matrices are given as the numbers that they stand for.
// Threads: const after open(). Errors: not_found (no directory, no such files, no such tensor), data_loss (torn
// file, missing shard, flipped bit), invalid_argument (another model).
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/manifest.h"
#include "checkpoint/packed.h"
#include "checkpoint/safetensors.h"
#include "layout/extents.h"

namespace tessera::checkpoint {

class WeightReader {
 public:
  static Result<WeightReader> open(const std::filesystem::path& directory);

  bool has(const std::string& name) const { return tensors_.contains(name); }
  std::vector<std::string> names() const;  // sorted
  Result<std::vector<int64_t>> shape(const std::string& name) const;
  Result<at::ScalarType> dtype(const std::string& name) const;  // as stored; float32 where quantised

  // The box as a fresh contiguous tensor of the box's shape. `to`: a floating type; bf16 rounds to nearest
  // even.
  Result<at::Tensor> read(const std::string& name, const Extent& box, at::ScalarType to) const;
  Result<at::Tensor> read(const std::string& name, at::ScalarType to) const;  // whole

  // Whether every tensor of the inventory is there with its shape and a floating type; tensors that the
  // inventory does not know are no error. One Error names the first differences and counts them.
  Status check_against(const std::vector<TensorSpec>& inventory) const;

 private:
  struct Place {
    std::shared_ptr<const SafetensorsFile> file;  // null: quantised
    const StoredTensor* stored;
    const ManifestArray* hashed = nullptr;  // in manifest_
  };
  explicit WeightReader(std::filesystem::path directory) : directory_(std::move(directory)) {}
  Status open_single(const std::filesystem::path& path);
  Status open_shards(const std::filesystem::path& index);
  Status open_packed();
  Status take_hashes();
  Status check_hashes(const Place& place, const Extent& box) const;
  Result<const Place*> find(const std::string& name) const;

  std::filesystem::path directory_;
  std::map<std::string, Place> tensors_;
  std::optional<PackedModel> packed_;
  std::map<std::string, StoredTensor> dequantised_;  // shape and type of what packed_ holds in few bits
  std::shared_ptr<const Manifest> manifest_;         // null: no checkpoint of ours
};

}  // namespace tessera::checkpoint
