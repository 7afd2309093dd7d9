#include "checkpoint/reader.h"

#include <fmt/ranges.h>

#include "checkpoint/boxes.h"
#include "checkpoint/guard.h"
#include "checkpoint/memory_pieces.h"
#include "checkpoint/state_kind.h"
#include "core/file.h"
#include "core/hash.h"

namespace tessera::checkpoint {
namespace {

constexpr size_t kMissingShown = 3;

std::string name_of(const std::filesystem::path& checkpoint) {
  return checkpoint.filename().string();
}

}  // namespace

CheckpointReader::CheckpointReader(std::filesystem::path directory, Manifest manifest)
    : directory_(std::move(directory)), manifest_(std::move(manifest)) {
  for (size_t i = 0; i < manifest_.arrays.size(); ++i) {
    const ManifestArray& entry = manifest_.arrays[i];
    places_[{entry.array.tensor, entry.array.content}] = i;
    verified_.emplace_back(entry.extents.size(), false);
  }
}

Result<std::unique_ptr<CheckpointReader>> CheckpointReader::open_unguarded(
    const std::filesystem::path& directory, Verify verify) {
  auto text = read_file(directory / kManifestFile);
  if (!text && !std::filesystem::is_directory(directory))
    return make_error(ErrorCode::not_found, "{}: no such checkpoint", directory.string());
  if (!text && text.error().code == ErrorCode::not_found)
    return damaged_checkpoint(
        directory, fmt::format("{} is missing: the save never ended, or this is no checkpoint", kManifestFile));
  if (!text) return text.error();
  auto manifest = parse_manifest(*text);
  if (!manifest && manifest.error().code == ErrorCode::invalid_argument)
    return manifest.error().within(directory.string());
  if (!manifest)
    return damaged_checkpoint(directory,
                              fmt::format("{} is damaged: {}", kManifestFile, manifest.error().message));
  std::unique_ptr<CheckpointReader> reader(new CheckpointReader(directory, std::move(*manifest)));
  reader->mode_ = verify;
  TESSERA_RETURN_IF_ERROR(reader->open_files());
  if (verify != Verify::full) return reader;
  auto damages = reader->verify();
  if (!damages.empty()) return damages.front();
  return reader;
}

Result<std::unique_ptr<CheckpointReader>> CheckpointReader::open(const std::filesystem::path& directory,
                                                                 Verify verify) {
  return guarded(directory.string(), [&] { return open_unguarded(without_slash(directory), verify); });
}

Error CheckpointReader::damage(std::string_view what) const {
  return damaged_checkpoint(directory_, what);
}

Status CheckpointReader::open_files() {
  for (const ManifestFile& file : manifest_.files) {
    auto opened = OpenFile::for_reading(directory_ / file.name);
    if (!opened && opened.error().code == ErrorCode::not_found)
      return damage(fmt::format("{} is missing", file.name));
    if (!opened) return opened.error();
    TESSERA_ASSIGN_OR_RETURN(int64_t bytes, opened->bytes());
    if (bytes != file.bytes)
      return damage(fmt::format("{} has {} bytes but the manifest says {}", file.name, bytes, file.bytes));
    TESSERA_RETURN_IF_ERROR(verify_head(file, *opened));
    files_.push_back(std::move(*opened));
  }
  TESSERA_ASSIGN_OR_RETURN(std::string text, read_small(kTrainingFile));
  auto training = parse_training_record(text);
  if (!training) return damage(training.error().message);
  training_ = std::move(*training);
  return {};
}

Result<std::string> CheckpointReader::read_small(const std::string& name) const {
  auto text = read_file(directory_ / name);
  if (!text && text.error().code == ErrorCode::not_found) return damage(fmt::format("{} is missing", name));
  return text;
}

Status CheckpointReader::verify_head(const ManifestFile& file, const OpenFile& opened) const {
  std::vector<std::byte> head(static_cast<size_t>(file.hashed_bytes));
  TESSERA_RETURN_IF_ERROR(opened.read_at(0, head));
  uint64_t got = hash64(head);
  if (got == file.hash) return {};
  const char* part = file.hashed_bytes == file.bytes ? "" : ": the header";
  return damage(
      fmt::format("{}{} has hash {} but the manifest says {}", file.name, part, hex(got), hex(file.hash)));
}

Status CheckpointReader::read_part(const ManifestArray& entry, const Extent& part, const Extent& target_box,
                                   std::byte* target) const {
  const PlannedArray& array = entry.array;
  auto item = static_cast<int64_t>(c10::elementSize(array.dtype));
  Status status;
  for_each_run(part, whole_box(array.shape), target_box, [&](const Run& run) {
    if (!status.ok()) return;
    std::span<std::byte> out(target + run.at_b * item, static_cast<size_t>(run.length * item));
    status = files_[array.file].read_at(array.begin + run.at_a * item, out);
  });
  if (status.ok() || status.error().code != ErrorCode::data_loss) return status;
  return damage(status.error().message);
}

Status CheckpointReader::verify_extent(size_t index, size_t number, std::vector<std::byte>& buffer) const {
  const ManifestArray& entry = manifest_.arrays[index];
  const HashedExtent& extent = entry.extents[number];
  buffer.resize(static_cast<size_t>(extent.box.elements()) * c10::elementSize(entry.array.dtype));
  TESSERA_RETURN_IF_ERROR(read_part(entry, extent.box, extent.box, buffer.data()));
  uint64_t got = hash64(buffer);
  if (got == extent.hash) return {};
  return damage(describe_mismatch(manifest_, entry, extent, got));
}

Status CheckpointReader::read(const std::string& tensor, StateKind kind, const Extent& box, at::Tensor& out) {
  return guarded(tensor, [&]() -> Status {
    TESSERA_RETURN_IF_ERROR(prepare_output(box, out));
    auto place = places_.find({tensor, kind});
    if (place == places_.end())
      return make_error(ErrorCode::not_found, "checkpoint {}: no {} of tensor {}", name_of(directory_),
                        to_string(kind), tensor);
    const ManifestArray& entry = manifest_.arrays[place->second];
    if (!lies_within(box, entry.array.shape))
      return invalid("checkpoint {}: {} lie outside tensor {} of shape {}", name_of(directory_), describe(box),
                     tensor, describe_shape(entry.array.shape));
    auto* target = static_cast<std::byte*>(out.mutable_data_ptr());
    std::vector<bool>& verified = verified_[place->second];
    std::vector<std::byte> buffer;
    for (size_t i = 0; i < entry.extents.size(); ++i) {
      auto common = intersection(box, entry.extents[i].box);
      if (!common) continue;
      if (mode_ == Verify::none || verified[i]) {
        TESSERA_RETURN_IF_ERROR(read_part(entry, *common, box, target));
        continue;
      }
      TESSERA_RETURN_IF_ERROR(verify_extent(place->second, i, buffer));
      copy_part(buffer.data(), entry.extents[i].box, target, box, *common, sizeof(float));
      verified[i] = true;
    }
    return {};
  });
}

Status CheckpointReader::check_against(const std::vector<TensorSpec>& inventory) const {
  std::vector<std::string> problems;
  for (const TensorSpec& tensor : inventory) {
    auto place = places_.find({tensor.name, StateKind::master});
    if (place == places_.end()) {
      problems.push_back(fmt::format("{} is missing", tensor.name));
      continue;
    }
    const auto& shape = manifest_.arrays[place->second].array.shape;
    if (shape != tensor.shape)
      problems.push_back(fmt::format("{} is {} but the configuration asks for {}", tensor.name,
                                     describe_shape(shape), describe_shape(tensor.shape)));
  }
  if (problems.empty()) return {};
  size_t shown = std::min(problems.size(), kMissingShown), count = problems.size();
  problems.resize(shown);
  return invalid("checkpoint {} is of another model ({} of {} tensors differ): {}{}", name_of(directory_),
                 count, inventory.size(), fmt::join(problems, "; "), count > shown ? "; ..." : "");
}

std::vector<Error> CheckpointReader::verify() {
  std::vector<Error> damages;
  std::vector<std::byte> buffer;
  for (size_t i = 0; i < manifest_.arrays.size(); ++i) {
    for (size_t extent = 0; extent < manifest_.arrays[i].extents.size(); ++extent) {
      Status status = guarded("verify", [&] { return verify_extent(i, extent, buffer); });
      if (!status.ok()) damages.push_back(status.error());
      verified_[i][extent] = status.ok();
    }
  }
  return damages;
}

Result<NewestIntact> open_newest_intact(const std::filesystem::path& directory, Verify verify) {
  NewestIntact found;
  for (const std::filesystem::path& path : list_checkpoints(directory)) {
    auto reader = CheckpointReader::open(path, verify);
    if (reader) {
      found.reader = std::move(*reader);
      return found;
    }
    found.skipped.push_back(reader.error());
  }
  if (found.skipped.empty()) return latest_checkpoint(directory).error();
  std::string reasons;
  for (const Error& error : found.skipped) reasons += "\n  " + error.message;
  return make_error(ErrorCode::data_loss, "{}: every checkpoint is damaged:{}", directory.string(), reasons);
}

}  // namespace tessera::checkpoint
