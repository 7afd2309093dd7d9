#include "checkpoint/file_plan.h"

#include <nlohmann/json.hpp>

#include "checkpoint/guard.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/state_kind.h"

namespace tessera::checkpoint {
namespace {

std::vector<std::vector<PlannedArray>> group_into_files(std::vector<PlannedArray> arrays, int64_t max_bytes) {
  std::vector<std::vector<PlannedArray>> files(1);
  int64_t bytes = 0;
  for (PlannedArray& array : arrays) {
    StoredTensor stored{.dtype = array.dtype, .shape = array.shape};
    int64_t more = stored.elements() * static_cast<int64_t>(c10::elementSize(array.dtype));
    if (!files.back().empty() && bytes + more > max_bytes) {
      files.emplace_back();
      bytes = 0;
    }
    bytes += more;
    files.back().push_back(std::move(array));
  }
  return files;
}

std::string file_name(const char* stem, size_t number, size_t count) {
  if (count == 1) return fmt::format("{}.safetensors", stem);
  return fmt::format("{}-{:05}-of-{:05}.safetensors", stem, number + 1, count);
}

std::string stored_tensor_name(const PlannedArray& array) {
  return array.content ? fmt::format("{}.{}", array.tensor, to_string(*array.content)) : array.tensor;
}

Status add_file(const std::string& name, std::vector<PlannedArray> arrays, FilePlan& plan) {
  std::vector<std::pair<std::string, StoredTensor>> tensors;
  for (const PlannedArray& array : arrays)
    tensors.emplace_back(stored_tensor_name(array), StoredTensor{.dtype = array.dtype, .shape = array.shape});
  TESSERA_ASSIGN_OR_RETURN(SafetensorsPlan file, plan_safetensors(tensors));
  for (size_t i = 0; i < arrays.size(); ++i) {
    arrays[i].file = plan.files.size();
    arrays[i].begin = file.tensors[i].begin;
    bool fresh = plan.places.emplace(std::pair(arrays[i].tensor, arrays[i].content), plan.arrays.size()).second;
    if (!fresh) return invalid("tensor {} stands twice in the inventory", arrays[i].tensor);
    plan.arrays.push_back(std::move(arrays[i]));
  }
  plan.files.push_back({name, std::move(file.head), file.file_bytes});
  return {};
}

Status add_files(const char* stem, std::vector<PlannedArray> arrays, int64_t max_bytes, FilePlan& plan) {
  auto files = group_into_files(std::move(arrays), max_bytes);
  for (size_t i = 0; i < files.size(); ++i)
    TESSERA_RETURN_IF_ERROR(add_file(file_name(stem, i, files.size()), std::move(files[i]), plan));
  return {};
}

std::string index_of(const FilePlan& plan) {
  nlohmann::json map = nlohmann::json::object();
  int64_t bytes = 0;
  for (const PlannedArray& array : plan.arrays) {
    map[array.tensor] = plan.files[array.file].name;
    StoredTensor stored{.dtype = array.dtype, .shape = array.shape};
    bytes += stored.elements() * static_cast<int64_t>(c10::elementSize(array.dtype));
  }
  return nlohmann::json{{"metadata", {{"total_size", bytes}}}, {"weight_map", map}}.dump(2) + "\n";
}

Result<FilePlan> plan_all(const std::vector<TensorSpec>& tensors, const FilePlanOptions& options) {
  if (options.working != at::kFloat && options.working != at::kBFloat16)
    return invalid("weights are stored as float32 or bf16, not as {}", c10::toString(options.working));
  std::vector<PlannedArray> weights, states;
  for (const TensorSpec& tensor : tensors) {
    weights.push_back({tensor.name, std::nullopt, options.working, tensor.shape});
    for (StateKind kind : kStateKinds) states.push_back({tensor.name, kind, at::kFloat, tensor.shape});
  }
  FilePlan plan;
  TESSERA_RETURN_IF_ERROR(add_files("model", std::move(weights), options.max_file_bytes, plan));
  if (plan.files.size() > 1) plan.index_json = index_of(plan);
  if (options.states)
    TESSERA_RETURN_IF_ERROR(add_files("optimizer", std::move(states), options.max_file_bytes, plan));
  return plan;
}

}  // namespace

const char* to_string(Content content) {
  return content ? tessera::to_string(*content) : "weight";
}

Result<Content> parse_content(const std::string& text) {
  if (text == "weight") return Content();
  TESSERA_ASSIGN_OR_RETURN(StateKind kind, parse_state_kind(text));
  return Content(kind);
}

Result<FilePlan> plan_files(const std::vector<TensorSpec>& tensors, const FilePlanOptions& options) {
  return guarded("plan of a checkpoint's files", [&] { return plan_all(tensors, options); });
}

}  // namespace tessera::checkpoint
