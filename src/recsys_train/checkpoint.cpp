#include "recsys_train/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "core/file.h"
#include "core/hash.h"

namespace tessera::recsys_train {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr int kCheckpointFormat = 1;

json to_json(const Standing& at) {
  return {{"epoch", at.epoch}, {"round", at.round}, {"step", at.step}, {"optimizer_steps", at.optimizer_steps},
          {"rows", at.rows},   {"loss", at.loss}};
}

Standing standing_in(const json& object) {
  return {.epoch = object.at("epoch"),
          .round = object.at("round"),
          .step = object.at("step"),
          .optimizer_steps = object.at("optimizer_steps"),
          .rows = object.at("rows"),
          .loss = object.at("loss")};
}

// Steps of the whole checkpoints of a run, oldest first.
std::vector<int64_t> steps_in(const fs::path& folder) {
  std::vector<int64_t> steps;
  std::error_code failure;
  for (const auto& entry : fs::directory_iterator(folder, failure)) {
    const std::string name = entry.path().filename().string();
    int64_t step = 0;
    const char *first = name.data() + 5, *last = name.data() + name.size();
    if (!name.starts_with("step-") || std::from_chars(first, last, step).ptr != last || first == last) continue;
    if (fs::exists(entry.path() / "manifest.json", failure)) steps.push_back(step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

}  // namespace

fs::path checkpoint_folder(const fs::path& run_dir, int64_t step) {
  return run_dir / "checkpoints" / fmt::format("step-{}", step);
}

std::vector<std::string> Checkpoint::files_of(size_t server) const {
  std::vector<std::string> files;
  for (const std::string& name : servers[server]) files.push_back((folder.parent_path() / name).string());
  return files;
}

Status write_checkpoint(const Checkpoint& checkpoint, std::span<const float> dense) {
  auto bytes = std::as_bytes(dense);
  TESSERA_RETURN_IF_ERROR(write_file_atomically(checkpoint.folder / "dense.bin",
                                                {reinterpret_cast<const char*>(bytes.data()), bytes.size()}));
  json manifest = {{"format", kCheckpointFormat},     {"standing", to_json(checkpoint.standing)},
                   {"batch", checkpoint.batch},       {"parts", checkpoint.parts},
                   {"servers", checkpoint.servers},   {"dense_floats", dense.size()},
                   {"dense_hash", hex(hash64(bytes))}};
  return write_file_atomically(checkpoint.folder / "manifest.json", manifest.dump(2) + "\n");
}

Result<Checkpoint> read_checkpoint(const fs::path& folder) {
  // An absolute path without a last slash, so that its parent is the folder of all checkpoints.
  Checkpoint checkpoint{.folder = fs::absolute(folder).lexically_normal()};
  if (checkpoint.folder.filename().empty()) checkpoint.folder = checkpoint.folder.parent_path();
  const fs::path file = checkpoint.folder / "manifest.json";
  auto text = read_file(file);
  if (!text) return text.error().within("no whole checkpoint");
  json manifest = json::parse(*text, nullptr, false);
  try {
    if (manifest.at("format") != kCheckpointFormat)
      return invalid("{}: format {}, expected {}", file.string(), manifest.at("format").dump(),
                     kCheckpointFormat);
    checkpoint.standing = standing_in(manifest.at("standing"));
    manifest.at("batch").get_to(checkpoint.batch);
    manifest.at("parts").get_to(checkpoint.parts);
    manifest.at("servers").get_to(checkpoint.servers);
    manifest.at("dense_floats").get_to(checkpoint.dense_floats);
    manifest.at("dense_hash").get_to(checkpoint.dense_hash);
  } catch (const json::exception& exception) {
    return make_error(ErrorCode::data_loss, "{}: {}", file.string(), exception.what());
  }
  return checkpoint;
}

Result<std::vector<float>> read_dense(const Checkpoint& checkpoint) {
  const fs::path file = checkpoint.folder / "dense.bin";
  TESSERA_ASSIGN_OR_RETURN(std::string bytes, read_file(file));
  std::string hash = hex(hash64(std::as_bytes(std::span(bytes))));
  if (bytes.size() != sizeof(float) * static_cast<size_t>(checkpoint.dense_floats) ||
      hash != checkpoint.dense_hash)
    return make_error(ErrorCode::data_loss,
                      "{}: {} bytes with hash {}, but the manifest says {} bytes with hash {}; resume from an "
                      "earlier checkpoint",
                      file.string(), bytes.size(), hash,
                      sizeof(float) * static_cast<size_t>(checkpoint.dense_floats), checkpoint.dense_hash);
  std::vector<float> dense(static_cast<size_t>(checkpoint.dense_floats));
  if (!dense.empty()) std::memcpy(dense.data(), bytes.data(), bytes.size());
  return dense;
}

Result<fs::path> newest_checkpoint(const fs::path& run_dir) {
  auto steps = steps_in(run_dir / "checkpoints");
  if (!steps.empty()) return checkpoint_folder(run_dir, steps.back());
  return make_error(ErrorCode::not_found,
                    "{} has no checkpoint to resume from; train with --checkpoint-every STEPS first",
                    (run_dir / "checkpoints").string());
}

Status check_no_later_checkpoint(const fs::path& run_dir, int64_t step) {
  auto steps = steps_in(run_dir / "checkpoints");
  if (steps.empty() || steps.back() <= step) return {};
  return invalid("{} is a checkpoint of another run; --resume goes on from it, or choose another train.run_dir",
                 checkpoint_folder(run_dir, steps.back()).string());
}

void remove_old_checkpoints(const fs::path& run_dir, int64_t keep, const fs::path& resumed) {
  auto steps = steps_in(run_dir / "checkpoints");
  std::vector<fs::path> kept;
  for (size_t i = steps.size() - std::min(steps.size(), static_cast<size_t>(keep)); i < steps.size(); ++i)
    kept.push_back(checkpoint_folder(run_dir, steps[i]));
  if (!resumed.empty()) kept.push_back(resumed);
  std::set<std::string> needed;
  for (const fs::path& folder : kept) {
    auto checkpoint = read_checkpoint(folder);
    if (!checkpoint) return;  // better too many than one too few
    needed.insert(checkpoint->folder.filename().string());
    for (const auto& files : checkpoint->servers)
      for (const std::string& file : files) needed.insert(fs::path(file).parent_path().string());
  }
  for (int64_t step : steps) {
    const fs::path folder = checkpoint_folder(run_dir, step);
    std::error_code failure;
    if (!needed.contains(folder.filename().string())) fs::remove_all(folder, failure);
  }
}

}  // namespace tessera::recsys_train
