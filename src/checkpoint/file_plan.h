// Where every value of a checkpoint lies: a pure function of the inventory, so that all ranks write into the
// same files without talking, and the header is right before the first value is there.
//
// model.safetensors (or model-00001-of-00003.safetensors, ... with an index) holds the weights in working
// precision under Hugging Face's names; optimizer-*.safetensors holds, in float32, NAME.master, NAME.exp_avg
// and NAME.exp_avg_sq, outside the index. Tensors stand in inventory order; a file is closed before it would
// pass max_file_bytes, and a tensor is never split over files.
#pragma once

#include <c10/core/ScalarType.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/pieces.h"
#include "spec/inventory.h"

namespace tessera::checkpoint {

// What of a tensor: its weight in working precision, or one of its states.
using Content = std::optional<StateKind>;
const char* to_string(Content content);  // "weight", "master", "exp_avg", "exp_avg_sq"
Result<Content> parse_content(const std::string& text);

struct PlannedArray {
  std::string tensor;
  Content content;
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> shape;
  size_t file = 0;    // index into FilePlan::files
  int64_t begin = 0;  // byte in the file
};

struct PlannedFile {
  std::string name;
  std::string head;  // its first bytes: the safetensors header
  int64_t bytes = 0;
};

struct FilePlan {
  std::vector<PlannedFile> files;
  std::vector<PlannedArray> arrays;
  std::string index_json;  // model.safetensors.index.json; empty when one file holds all weights

  // Place of an array in `arrays`, by tensor and content.
  std::map<std::pair<std::string, Content>, size_t> places;
};

struct FilePlanOptions {
  at::ScalarType working = at::kFloat;  // kFloat or kBFloat16
  int64_t max_file_bytes = int64_t{5} << 30;
  bool states = true;  // false: the weights alone, as for an export
};
Result<FilePlan> plan_files(const std::vector<TensorSpec>& tensors, const FilePlanOptions& options);

}  // namespace tessera::checkpoint
