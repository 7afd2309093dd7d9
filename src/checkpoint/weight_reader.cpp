#include "checkpoint/weight_reader.h"

#include <ATen/ops/empty.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "checkpoint/boxes.h"
#include "checkpoint/directory.h"
#include "checkpoint/guard.h"
#include "core/file.h"
#include "core/hash.h"
#include "core/nearest.h"

namespace tessera::checkpoint {
namespace {

constexpr const char* kSingleFile = "model.safetensors";
constexpr size_t kProblemsShown = 3;

using FileOf = std::map<std::string, std::string>;  // tensor to file

Result<FileOf> parse_index(const std::filesystem::path& path) {
  TESSERA_ASSIGN_OR_RETURN(std::string text, read_file(path));
  auto object = nlohmann::json::parse(text, nullptr, false);
  if (object.is_discarded() || !object.is_object() || !object.contains("weight_map") ||
      !object["weight_map"].is_object())
    return make_error(ErrorCode::data_loss, "{}: not a JSON object with a weight_map", path.string());
  FileOf files;
  for (const auto& [name, file] : object["weight_map"].items()) {
    // A name with a folder could lead out of the model's directory.
    bool plain = file.is_string() &&
                 std::filesystem::path(file.get<std::string>()).filename() == file.get<std::string>();
    if (!plain)
      return make_error(ErrorCode::data_loss, "{}: tensor {} has no plain file name", path.string(), name);
    files[name] = file.get<std::string>();
  }
  return files;
}

std::string join_problems(const std::vector<std::string>& problems) {
  size_t shown = std::min(problems.size(), kProblemsShown);
  std::string text =
      fmt::format("{}", fmt::join(problems.begin(), problems.begin() + static_cast<long>(shown), "; "));
  if (problems.size() > shown) text += fmt::format("; and {} more", problems.size() - shown);
  return text;
}

}  // namespace

Result<WeightReader> WeightReader::open(const std::filesystem::path& directory) {
  return guarded(directory.string(), [&]() -> Result<WeightReader> {
    WeightReader reader(directory);
    if (PackedModel::is_at(directory)) {
      TESSERA_RETURN_IF_ERROR(reader.open_packed());
      return reader;
    }
    if (std::filesystem::exists(directory / kSingleFile))
      TESSERA_RETURN_IF_ERROR(reader.open_single(directory / kSingleFile));
    else if (std::filesystem::exists(directory / kIndexFile))
      TESSERA_RETURN_IF_ERROR(reader.open_shards(directory / kIndexFile));
    else
      return make_error(ErrorCode::not_found,
                        "{}: neither {} nor {} is there; give a Hugging Face model directory",
                        directory.string(), kSingleFile, kIndexFile);
    TESSERA_RETURN_IF_ERROR(reader.take_hashes());
    return reader;
  });
}

Status WeightReader::open_single(const std::filesystem::path& path) {
  TESSERA_ASSIGN_OR_RETURN(SafetensorsFile opened, SafetensorsFile::open(path));
  auto file = std::make_shared<const SafetensorsFile>(std::move(opened));
  for (const auto& [name, stored] : file->header().tensors) tensors_[name] = {file, &stored};
  return {};
}

Status WeightReader::open_packed() {
  TESSERA_ASSIGN_OR_RETURN(packed_, PackedModel::open(directory_));
  for (const std::string& name : packed_->names()) {
    if (!packed_->is_quantised(name)) {
      tensors_[name] = {packed_->file(), packed_->file()->find(name)};
      continue;
    }
    TESSERA_ASSIGN_OR_RETURN(dequantised_[name].shape, packed_->shape(name));
    tensors_[name] = {nullptr, &dequantised_[name]};
  }
  return {};
}

Status WeightReader::open_shards(const std::filesystem::path& index) {
  TESSERA_ASSIGN_OR_RETURN(FileOf file_of, parse_index(index));
  std::map<std::string, std::shared_ptr<const SafetensorsFile>> files;
  for (const auto& [name, file_name] : file_of) {
    auto& file = files[file_name];
    if (!file) {
      if (!std::filesystem::exists(directory_ / file_name))
        return make_error(ErrorCode::data_loss, "{}: shard {} is missing, but {} lists it for tensor {}",
                          directory_.string(), file_name, kIndexFile, name);
      TESSERA_ASSIGN_OR_RETURN(SafetensorsFile opened, SafetensorsFile::open(directory_ / file_name));
      file = std::make_shared<const SafetensorsFile>(std::move(opened));
    }
    const StoredTensor* stored = file->find(name);
    if (!stored)
      return make_error(ErrorCode::data_loss, "{}: shard {} has no tensor {}, but {} says so",
                        directory_.string(), file_name, name, kIndexFile);
    tensors_[name] = {file, stored};
  }
  return {};
}

Status WeightReader::take_hashes() {
  if (!std::filesystem::exists(directory_ / kManifestFile)) return {};
  TESSERA_ASSIGN_OR_RETURN(std::string text, read_file(directory_ / kManifestFile));
  if (!is_manifest(text)) return {};  // somebody else's file of that name
  auto manifest = parse_manifest(text);
  if (!manifest)
    return damaged_checkpoint(directory_,
                              fmt::format("{} is damaged: {}", kManifestFile, manifest.error().message));
  manifest_ = std::make_shared<const Manifest>(std::move(*manifest));
  for (const ManifestArray& entry : manifest_->arrays) {
    if (entry.array.content) continue;
    auto place = tensors_.find(entry.array.tensor);
    if (place != tensors_.end() && place->second.stored->shape == entry.array.shape)
      place->second.hashed = &entry;
  }
  return {};
}

// Every extent that the box touches.
Status WeightReader::check_hashes(const Place& place, const Extent& box) const {
  if (!place.hashed) return {};
  std::span<const std::byte> whole = place.file->bytes(*place.stored);
  Extent all = whole_box(place.stored->shape);
  auto item = static_cast<int64_t>(c10::elementSize(place.stored->dtype));
  std::vector<std::byte> copy;
  for (const HashedExtent& extent : place.hashed->extents) {
    if (!intersection(box, extent.box)) continue;
    std::span<const std::byte> values = whole;
    if (extent.box.elements() != all.elements()) {
      copy.resize(static_cast<size_t>(extent.box.elements() * item));
      copy_part(whole.data(), all, copy.data(), extent.box, extent.box, item);
      values = copy;
    }
    uint64_t got = hash64(values);
    if (got != extent.hash)
      return damaged_checkpoint(directory_, describe_mismatch(*manifest_, *place.hashed, extent, got));
  }
  return {};
}

std::vector<std::string> WeightReader::names() const {
  std::vector<std::string> names;
  for (const auto& [name, place] : tensors_) names.push_back(name);
  return names;
}

Result<const WeightReader::Place*> WeightReader::find(const std::string& name) const {
  auto found = tensors_.find(name);
  if (found != tensors_.end()) return &found->second;
  return make_error(ErrorCode::not_found, "{}: no tensor {}{}", directory_.string(), name,
                    did_you_mean(name, names()));
}

Result<std::vector<int64_t>> WeightReader::shape(const std::string& name) const {
  TESSERA_ASSIGN_OR_RETURN(const Place* place, find(name));
  return place->stored->shape;
}

Result<at::ScalarType> WeightReader::dtype(const std::string& name) const {
  TESSERA_ASSIGN_OR_RETURN(const Place* place, find(name));
  return place->stored->dtype;
}

Result<at::Tensor> WeightReader::read(const std::string& name, const Extent& box, at::ScalarType to) const {
  TESSERA_ASSIGN_OR_RETURN(const Place* place, find(name));
  const StoredTensor& stored = *place->stored;
  if (!lies_within(box, stored.shape))
    return invalid("{}: box {} is outside tensor {} of shape {}", directory_.string(), describe(box), name,
                   describe_shape(stored.shape));
  TESSERA_RETURN_IF_ERROR(check_hashes(*place, box));
  return guarded(name, [&]() -> Result<at::Tensor> {
    if (!place->file) {
      TESSERA_ASSIGN_OR_RETURN(at::Tensor values, packed_->dequantised(name, box));
      return values.to(to);
    }
    at::Tensor out = at::empty(box.size, at::TensorOptions().dtype(stored.dtype));
    copy_part(place->file->bytes(stored).data(), whole_box(stored.shape),
              static_cast<std::byte*>(out.mutable_data_ptr()), box, box,
              static_cast<int64_t>(c10::elementSize(stored.dtype)));
    return out.to(to);
  });
}

Result<at::Tensor> WeightReader::read(const std::string& name, at::ScalarType to) const {
  TESSERA_ASSIGN_OR_RETURN(const Place* place, find(name));
  return read(name, whole_box(place->stored->shape), to);
}

Status WeightReader::check_against(const std::vector<TensorSpec>& inventory) const {
  std::vector<std::string> problems;
  for (const TensorSpec& tensor : inventory) {
    auto found = tensors_.find(tensor.name);
    if (found == tensors_.end()) {
      problems.push_back(fmt::format("{} is missing", tensor.name));
      continue;
    }
    const StoredTensor& stored = *found->second.stored;
    if (stored.shape != tensor.shape)
      problems.push_back(fmt::format("{} is {} but the configuration asks for {}", tensor.name,
                                     describe_shape(stored.shape), describe_shape(tensor.shape)));
    else if (!c10::isFloatingType(stored.dtype) || c10::elementSize(stored.dtype) < 2)
      problems.push_back(fmt::format("{} is stored as {}, which needs scales that we do not read", tensor.name,
                                     c10::toString(stored.dtype)));
  }
  if (problems.empty()) return {};
  return invalid("{}: the weights are another model's ({} of {} tensors differ): {}; check config.json",
                 directory_.string(), problems.size(), inventory.size(), join_problems(problems));
}

}  // namespace tessera::checkpoint
