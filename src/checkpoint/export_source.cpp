#include "checkpoint/export_source.h"

#include <nlohmann/json.hpp>

#include "checkpoint/packed.h"
#include "checkpoint/state_kind.h"
#include "core/file.h"

namespace tessera::checkpoint {
namespace {

namespace fs = std::filesystem;
// Belong to the form at hand, not to the model.
const std::vector<std::string> kOwnFiles = {kManifestFile, kTrainingFile, kPackedManifest,
                                            "model.safetensors.index.json"};

}  // namespace

Status check_target(const fs::path& to) {
  std::error_code ignored;
  if (!fs::exists(to, ignored)) return {};
  return invalid("{} exists already; name a directory that does not", to.string());
}

Workplace::Workplace(const fs::path& to)
    : to_(without_slash(fs::absolute(to))), path_(to_.parent_path() / temporary_name(0, ".convert-")) {}

Workplace::~Workplace() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

Status Workplace::publish() const {
  return publish_directory(path_, to_);
}

Result<TextFiles> side_files(const fs::path& from, const char* dtype) {
  TextFiles texts;
  for (const auto& entry : fs::directory_iterator(from)) {
    std::string name = entry.path().filename().string();
    bool own = std::find(kOwnFiles.begin(), kOwnFiles.end(), name) != kOwnFiles.end();
    if (own || entry.path().extension() != ".json") continue;
    TESSERA_ASSIGN_OR_RETURN(texts[name], read_file(entry.path()));
  }
  auto config = texts.find("config.json");
  if (config == texts.end() || dtype == nullptr) return texts;
  auto object = nlohmann::json::parse(config->second);
  for (const char* key : {"torch_dtype", "dtype"})
    if (object.contains(key) || key == std::string_view("torch_dtype")) object[key] = dtype;
  config->second = object.dump(2) + "\n";
  return texts;
}

Status write_texts(const fs::path& directory, const TextFiles& texts) {
  for (const auto& [name, text] : texts) TESSERA_RETURN_IF_ERROR(write_file_atomically(directory / name, text));
  return sync_directory(directory);
}

std::vector<TensorSpec> tensors_of(const Manifest& manifest) {
  std::vector<TensorSpec> tensors;
  for (const ManifestArray& entry : manifest.arrays)
    if (!entry.array.content)
      tensors.push_back({.name = entry.array.tensor, .role = Role::q, .shape = entry.array.shape});
  return tensors;
}

Result<ExportSource> ExportSource::open(const fs::path& from) {
  ExportSource source;
  if (fs::exists(from / kManifestFile)) {
    TESSERA_ASSIGN_OR_RETURN(source.checkpoint_, CheckpointReader::open(from, Verify::touched));
    source.tensors_ = tensors_of(source.checkpoint_->manifest());
    return source;
  }
  TESSERA_ASSIGN_OR_RETURN(source.weights_, WeightReader::open(from));
  for (const std::string& name : source.weights_->names()) {
    TensorSpec tensor{.name = name, .role = Role::q};
    TESSERA_ASSIGN_OR_RETURN(tensor.shape, source.weights_->shape(name));
    source.tensors_.push_back(std::move(tensor));
  }
  TESSERA_RETURN_IF_ERROR(source.weights_->check_against(source.tensors_));  // refuses types that need scales
  return source;
}

Status ExportSource::read(const TensorSpec& tensor, const Extent& box, at::Tensor& out) {
  out = at::Tensor();
  if (checkpoint_) return checkpoint_->read(tensor.name, StateKind::master, box, out);
  TESSERA_ASSIGN_OR_RETURN(out, weights_->read(tensor.name, box, at::kFloat));
  return {};
}

}  // namespace tessera::checkpoint
