#include "checkpoint/builder.h"

#include <c10/util/BFloat16.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include "checkpoint/boxes.h"
#include "checkpoint/guard.h"
#include "checkpoint/safetensors.h"
#include "core/file.h"
#include "core/hash.h"

namespace tessera::checkpoint {
namespace {

std::span<const std::byte> bytes_of_text(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

ManifestFile describe_file(const std::string& name, int64_t bytes, std::string_view hashed) {
  return {name, bytes, static_cast<int64_t>(hashed.size()), hash64(bytes_of_text(hashed))};
}

Result<Manifest> assemble(const FilePlan& plan, const std::vector<WrittenExtent>& written, int64_t step,
                          const TextFiles& texts) {
  Manifest manifest{.step = step};
  for (const PlannedFile& file : plan.files)
    manifest.files.push_back(describe_file(file.name, file.bytes, file.head));
  for (const auto& [name, text] : texts)
    manifest.files.push_back(describe_file(name, static_cast<int64_t>(text.size()), text));
  for (const PlannedArray& array : plan.arrays) manifest.arrays.push_back({array, {}});
  for (const WrittenExtent& one : written) {
    if (one.array >= manifest.arrays.size())
      return invalid("extent of array {} of {}", one.array, plan.arrays.size());
    manifest.arrays[one.array].extents.push_back(one.extent);
  }
  for (ManifestArray& array : manifest.arrays) {
    TESSERA_RETURN_IF_ERROR(check_tiling(array));
    std::sort(array.extents.begin(), array.extents.end(),
              [](const HashedExtent& a, const HashedExtent& b) { return a.box.offset < b.box.offset; });
  }
  return manifest;
}

}  // namespace

std::string to_text(const std::vector<WrittenExtent>& written) {
  nlohmann::json list = nlohmann::json::array();
  for (const WrittenExtent& one : written)
    list.push_back({one.array, one.extent.box.offset, one.extent.box.size, one.extent.hash});
  return list.dump();
}

Result<std::vector<WrittenExtent>> parse_written(std::string_view text) {
  return guarded("a rank's list of extents", [&]() -> Result<std::vector<WrittenExtent>> {
    std::vector<WrittenExtent> written;
    for (const auto& entry : nlohmann::json::parse(text)) {
      Extent box{entry.at(1).get<std::vector<int64_t>>(), entry.at(2).get<std::vector<int64_t>>()};
      written.push_back({entry.at(0).get<size_t>(), {std::move(box), entry.at(3).get<uint64_t>()}});
    }
    return written;
  });
}

Status create_files(const std::filesystem::path& directory, const FilePlan& plan) {
  std::error_code failed;
  std::filesystem::create_directories(directory, failed);
  if (failed) return system_error("create", directory, failed.value());
  for (const PlannedFile& planned : plan.files) {
    TESSERA_ASSIGN_OR_RETURN(OpenFile file, OpenFile::create(directory / planned.name, planned.bytes));
    TESSERA_RETURN_IF_ERROR(file.write_at(0, bytes_of_text(planned.head)));
    TESSERA_RETURN_IF_ERROR(file.sync());
  }
  return {};
}

Result<const OpenFile*> ExtentWriter::file(size_t index) {
  auto found = files_.find(index);
  if (found == files_.end()) {
    TESSERA_ASSIGN_OR_RETURN(OpenFile opened, OpenFile::for_writing(directory_ / plan_.files[index].name));
    found = files_.emplace(index, std::move(opened)).first;
  }
  return &found->second;
}

Status ExtentWriter::write(const std::string& tensor, StateKind kind, const Extent& box,
                           std::span<const float> values) {
  TESSERA_RETURN_IF_ERROR(write_content(tensor, kind, box, values));
  if (kind != StateKind::master) return {};
  return write_weight(tensor, box, values);
}

Status ExtentWriter::write_weight(const std::string& tensor, const Extent& box, std::span<const float> values) {
  return write_content(tensor, std::nullopt, box, values);
}

Status ExtentWriter::write_content(const std::string& tensor, Content content, const Extent& box,
                                   std::span<const float> values) {
  auto place = plan_.places.find({tensor, content});
  if (place == plan_.places.end())
    return invalid("{} of tensor {} is not in the model's inventory", to_string(content), tensor);
  const PlannedArray& array = plan_.arrays[place->second];
  if (!lies_within(box, array.shape) || static_cast<int64_t>(values.size()) != box.elements())
    return invalid("{} values for {} of tensor {} of shape {}", values.size(), describe(box), tensor,
                   describe_shape(array.shape));
  // Cut by the size in float32, so that weights and states have the same extents.
  for (const Extent& part : cut(box, extent_bytes_ / static_cast<int64_t>(sizeof(float)))) {
    auto count = static_cast<size_t>(part.elements());
    TESSERA_RETURN_IF_ERROR(write_extent(place->second, part, values.first(count)));
    values = values.subspan(count);
  }
  return {};
}

Status ExtentWriter::write_extent(size_t index, const Extent& box, std::span<const float> values) {
  const PlannedArray& array = plan_.arrays[index];
  std::span<const std::byte> bytes = std::as_bytes(values);
  if (array.dtype == at::kBFloat16) {
    rounded_.resize(values.size());
    for (size_t i = 0; i < values.size(); ++i) rounded_[i] = c10::BFloat16(values[i]).x;
    bytes = std::as_bytes(std::span<const uint16_t>(rounded_));
  }
  TESSERA_ASSIGN_OR_RETURN(const OpenFile* target, file(array.file));
  auto item = static_cast<int64_t>(c10::elementSize(array.dtype));
  Status status;
  for_each_run(box, box, whole_box(array.shape), [&](const Run& run) {
    if (!status.ok()) return;
    auto part = bytes.subspan(static_cast<size_t>(run.at_a * item), static_cast<size_t>(run.length * item));
    status = target->write_at(array.begin + run.at_b * item, part);
  });
  TESSERA_RETURN_IF_ERROR(status);
  written_.push_back({index, {box, hash64(bytes)}});
  bytes_ += static_cast<int64_t>(bytes.size());
  return {};
}

Status ExtentWriter::sync() {
  for (const auto& [index, file] : files_) TESSERA_RETURN_IF_ERROR(file.sync());
  return {};
}

Status finish_files(const std::filesystem::path& directory, const FilePlan& plan,
                    const std::vector<WrittenExtent>& written, int64_t step, TextFiles texts) {
  if (!plan.index_json.empty()) texts[kIndexFile] = plan.index_json;
  auto manifest = guarded(kManifestFile, [&] { return assemble(plan, written, step, texts); });
  if (!manifest) return manifest.error();
  TESSERA_ASSIGN_OR_RETURN(std::string manifest_text, to_text(*manifest));
  for (const auto& [name, text] : texts) TESSERA_RETURN_IF_ERROR(write_file_atomically(directory / name, text));
  TESSERA_RETURN_IF_ERROR(write_file_atomically(directory / kManifestFile, manifest_text));
  return sync_directory(directory);
}

}  // namespace tessera::checkpoint
