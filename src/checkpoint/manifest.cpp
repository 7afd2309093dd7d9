#include "checkpoint/manifest.h"

#include <charconv>
#include <nlohmann/json.hpp>

#include "checkpoint/boxes.h"
#include "checkpoint/guard.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/state_kind.h"
#include "core/hash.h"

namespace tessera::checkpoint {
namespace {

constexpr const char* kManifestFormat = "tessera-checkpoint";
constexpr const char* kOwnHash = "manifest_xxh3";

uint64_t hash_of(const std::string& text) {
  return hash64(std::as_bytes(std::span(text)));
}

Result<uint64_t> parse_hash(const nlohmann::json& value) {
  uint64_t hash = 0;
  const auto& text = value.get_ref<const std::string&>();
  auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), hash, 16);
  if (failed == std::errc() && end == text.data() + text.size()) return hash;
  return make_error(ErrorCode::data_loss, "'{}' is not a hash", text);
}

// Byte of the first value of the box.
int64_t first_byte(const PlannedArray& array, const Extent& box) {
  int64_t flat = 0;
  for (size_t dim = 0; dim < box.offset.size(); ++dim) flat = flat * array.shape[dim] + box.offset[dim];
  return array.begin + flat * static_cast<int64_t>(c10::elementSize(array.dtype));
}

nlohmann::json array_json(const ManifestArray& entry, const Manifest& manifest) {
  const PlannedArray& array = entry.array;
  nlohmann::json extents = nlohmann::json::array();
  for (const HashedExtent& extent : entry.extents)
    extents.push_back({{"offset", extent.box.offset},
                       {"size", extent.box.size},
                       {"at", first_byte(array, extent.box)},
                       {"xxh3", hex(extent.hash)}});
  return {{"tensor", array.tensor},
          {"content", to_string(array.content)},
          {"dtype", *stored_name(array.dtype)},
          {"shape", array.shape},
          {"file", manifest.files.at(array.file).name},
          {"begin", array.begin},
          {"extents", std::move(extents)}};
}

Result<ManifestArray> parse_array(const nlohmann::json& object, const std::map<std::string, size_t>& file_at) {
  ManifestArray entry;
  PlannedArray& array = entry.array;
  array.tensor = object.at("tensor").get<std::string>();
  TESSERA_ASSIGN_OR_RETURN(array.content, parse_content(object.at("content").get<std::string>()));
  TESSERA_ASSIGN_OR_RETURN(array.dtype, parse_stored_name(object.at("dtype").get<std::string>()));
  array.shape = object.at("shape").get<std::vector<int64_t>>();
  array.file = file_at.at(object.at("file").get<std::string>());
  array.begin = object.at("begin").get<int64_t>();
  if (array.content && array.dtype != at::kFloat)
    return make_error(ErrorCode::data_loss, "{} of {} is not float32", to_string(array.content), array.tensor);
  for (const auto& part : object.at("extents")) {
    HashedExtent extent;
    extent.box.offset = part.at("offset").get<std::vector<int64_t>>();
    extent.box.size = part.at("size").get<std::vector<int64_t>>();
    TESSERA_ASSIGN_OR_RETURN(extent.hash, parse_hash(part.at("xxh3")));
    entry.extents.push_back(std::move(extent));
  }
  TESSERA_RETURN_IF_ERROR(check_tiling(entry));
  return entry;
}

Status check_identity(nlohmann::json& object) {
  if (object.value("format", "") != kManifestFormat)
    return make_error(ErrorCode::data_loss, "is not the manifest of a checkpoint");
  if (object.at("version").get<int>() != kManifestVersion)
    return invalid("has format version {}, but this program reads version {}", object.at("version").dump(),
                   kManifestVersion);
  auto expected = object.at(kOwnHash).get<std::string>();
  object.erase(kOwnHash);
  std::string got = hex(hash_of(object.dump()));
  if (got == expected) return {};
  return make_error(ErrorCode::data_loss, "has hash {} but says {}", got, expected);
}

Result<Manifest> parse_json(nlohmann::json object) {
  TESSERA_RETURN_IF_ERROR(check_identity(object));
  Manifest manifest;
  std::map<std::string, size_t> file_at;
  manifest.step = object.at("step").get<int64_t>();
  for (const auto& entry : object.at("files")) {
    ManifestFile file{.name = entry.at("name").get<std::string>(),
                      .bytes = entry.at("bytes").get<int64_t>(),
                      .hashed_bytes = entry.at("hashed_bytes").get<int64_t>()};
    TESSERA_ASSIGN_OR_RETURN(file.hash, parse_hash(entry.at("xxh3")));
    file_at[file.name] = manifest.files.size();
    manifest.files.push_back(std::move(file));
  }
  for (const auto& entry : object.at("arrays")) {
    TESSERA_ASSIGN_OR_RETURN(ManifestArray array, parse_array(entry, file_at));
    manifest.arrays.push_back(std::move(array));
  }
  return manifest;
}

// The first part of the array that no extent holds.
std::optional<Extent> first_gap(const ManifestArray& array) {
  std::vector<Extent> missing = {whole_box(array.array.shape)};
  for (const HashedExtent& extent : array.extents) {
    std::vector<Extent> still;
    for (const Extent& part : missing)
      for (Extent& rest : difference(part, extent.box)) still.push_back(std::move(rest));
    missing = std::move(still);
  }
  if (missing.empty() || missing.front().elements() == 0) return std::nullopt;
  return missing.front();
}

}  // namespace

Status check_tiling(const ManifestArray& entry) {
  const PlannedArray& array = entry.array;
  std::string name = fmt::format("{} of tensor {}", to_string(array.content), array.tensor);
  std::vector<Extent> boxes;
  int64_t covered = 0;
  for (const HashedExtent& extent : entry.extents) {
    if (!lies_within(extent.box, array.shape))
      return make_error(ErrorCode::data_loss, "{}: {} lie outside shape {}", name, describe(extent.box),
                        describe_shape(array.shape));
    boxes.push_back(extent.box);
    covered += extent.box.elements();
  }
  if (auto pair = overlapping(boxes))
    return make_error(ErrorCode::data_loss, "{}: {} were given twice (again as {})", name,
                      describe(boxes[pair->first]), describe(boxes[pair->second]));
  if (covered == whole_box(array.shape).elements()) return {};
  auto gap = first_gap(entry);
  return make_error(ErrorCode::data_loss, "{}: {} were given by no rank", name,
                    gap ? describe(*gap) : "some values");
}

Result<std::string> to_text(const Manifest& manifest) {
  return guarded(kManifestFile, [&]() -> Result<std::string> {
    nlohmann::json files = nlohmann::json::array(), arrays = nlohmann::json::array();
    for (const ManifestFile& file : manifest.files)
      files.push_back({{"name", file.name},
                       {"bytes", file.bytes},
                       {"hashed_bytes", file.hashed_bytes},
                       {"xxh3", hex(file.hash)}});
    for (const ManifestArray& array : manifest.arrays) arrays.push_back(array_json(array, manifest));
    nlohmann::json object = {{"format", kManifestFormat},
                             {"version", kManifestVersion},
                             {"step", manifest.step},
                             {"files", std::move(files)},
                             {"arrays", std::move(arrays)}};
    object[kOwnHash] = hex(hash_of(object.dump()));
    return object.dump(1) + "\n";
  });
}

std::string describe_mismatch(const Manifest& manifest, const ManifestArray& array, const HashedExtent& extent,
                              uint64_t got) {
  std::string of = array.array.content ? fmt::format("{} of tensor", to_string(array.array.content)) : "tensor";
  return fmt::format("{}: {} {} {} has hash {} but the manifest says {}", manifest.files[array.array.file].name,
                     of, array.array.tensor, describe(extent.box), hex(got), hex(extent.hash));
}

bool is_manifest(std::string_view text) {
  return text.find(kManifestFormat) != std::string_view::npos;
}

Result<Manifest> parse_manifest(std::string_view text) {
  auto parsed = guarded(kManifestFile, [&] { return parse_json(nlohmann::json::parse(text)); });
  if (parsed || parsed.error().code != ErrorCode::internal) return parsed;
  return Error{ErrorCode::data_loss, parsed.error().message};  // the JSON library's exceptions: a damaged text
}

}  // namespace tessera::checkpoint
