// A model in few bits, ready to map: what a server starts from without reading it first.
//
// packed.safetensors holds every quantised matrix under its Hugging Face name as bytes (U8) in the order that
// the products read (kernels/quant.h), each at a multiple of 64, and the other tensors as floats behind them.
// packed.json says what the bytes are:
//   {"format": "tessera-packed", "version": 1, "tp_blocks": 4, "head_xxh3": H, "tensors":
//    {"model.layers.0.mlp.down_proj.weight": {"kind": "int8", "n": 896, "k": 4864, "blocks": 4, "xxh3": H},
//    ...}}
// A tensor without "kind" is stored as floats. The output and down projections are cut in `tp_blocks` blocks of
// k, so that any degree of tensor parallelism that divides it reads its part, and all give the same sums.
//
// Tensors and weights that come out of here are views that keep the file mapped.
// Threads: const after open(). Errors: not_found, data_loss (torn, another form), invalid_argument.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "kernels/quant.h"
#include "layout/extents.h"
#include "spec/inventory.h"

namespace tessera::checkpoint {

inline constexpr const char* kPackedFile = "packed.safetensors";
inline constexpr const char* kPackedManifest = "packed.json";

struct PackedTensor {
  std::optional<kernels::QuantShape> shape;  // of a quantised matrix
  std::string xxh3;                          // of its bytes
};
struct PackedIndex {
  int64_t tp_blocks = 1;
  std::string head_xxh3;  // of the header of packed.safetensors
  std::map<std::string, PackedTensor> tensors;
};
std::string to_text(const PackedIndex& index);
Result<PackedIndex> parse_packed_index(const std::string& text);

class PackedModel {
 public:
  static bool is_at(const std::filesystem::path& directory);
  static Result<PackedModel> open(const std::filesystem::path& directory);

  int64_t tp_blocks() const { return index_.tp_blocks; }
  std::vector<std::string> names() const;
  bool is_quantised(const std::string& name) const;
  const std::shared_ptr<const SafetensorsFile>& file() const { return file_; }
  Result<std::vector<int64_t>> shape(const std::string& name) const;  // as Hugging Face has it
  Result<at::ScalarType> dtype(const std::string& name) const;        // kByte when quantised

  Result<kernels::QuantWeight> weight(const std::string& name) const;  // REQUIRES: quantised
  Result<at::Tensor> floats(const std::string& name) const;            // REQUIRES: not quantised
  // The numbers of a box in float32. REQUIRES: quantised, and the box lies within.
  Result<at::Tensor> dequantised(const std::string& name, const Extent& box) const;

  // Asks the kernel for all pages now, so that the first request finds them. Changes nothing else.
  void read_ahead() const;
  // What is asked for later comes from a copy of the file in large pages: products read it faster, at the price
  // of its size in memory that no other process shares. False, and nothing is copied, when memory is short.
  bool copy_to_large_pages();
  // Every hash; what is damaged, by name.
  std::vector<Error> verify() const;

 private:
  PackedModel(std::shared_ptr<const SafetensorsFile> file, PackedIndex index)
      : file_(std::move(file)), index_(std::move(index)) {}
  Result<const PackedTensor*> find(const std::string& name) const;
  at::Tensor view(const StoredTensor& stored) const;

  std::shared_ptr<const SafetensorsFile> file_;
  PackedIndex index_;
  at::Tensor copy_;  // of the whole file, or undefined
};

}  // namespace tessera::checkpoint
