#include "checkpoint/directory.h"

#include <fcntl.h>
#include <stdio.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <random>

#include "checkpoint/disk.h"
#include "checkpoint/manifest.h"
#include "core/file.h"

namespace tessera::checkpoint {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view kStep = "step-", kTemporary = ".tmp-";

std::vector<fs::path> entries(const fs::path& directory) {
  std::vector<fs::path> out;
  std::error_code ignored;
  for (fs::directory_iterator at(directory, ignored), end; !ignored && at != end; at.increment(ignored))
    out.push_back(at->path());
  return out;
}

// Renamed first, so that a removal cut short leaves no torn checkpoint under a good name.
void remove_checkpoint(const fs::path& path) {
  fs::path doomed = path.parent_path() / temporary_name(step_of(path));
  std::error_code ignored;
  fs::rename(path, doomed, ignored);
  if (!ignored) fs::remove_all(doomed, ignored);
}

}  // namespace

fs::path step_directory(const fs::path& directory, int64_t step) {
  return directory / fmt::format("{}{}", kStep, step);
}

fs::path without_slash(const fs::path& path) {
  fs::path plain = path.lexically_normal();
  return plain.has_filename() ? plain : plain.parent_path();
}

std::string temporary_name(int64_t step, std::string_view prefix) {
  std::random_device random;
  return fmt::format("{}{}{}-{:08x}", prefix, kStep, step, static_cast<uint32_t>(random()));
}

int64_t step_of(const fs::path& checkpoint) {
  std::string name = checkpoint.filename().string();
  if (!name.starts_with(kStep)) return -1;
  int64_t step = -1;
  const char *begin = name.data() + kStep.size(), *end = name.data() + name.size();
  auto [stop, failed] = std::from_chars(begin, end, step);
  return failed == std::errc() && stop == end && step >= 0 ? step : -1;
}

std::vector<fs::path> list_checkpoints(const fs::path& directory) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const fs::path& path : entries(directory))
    if (step_of(path) >= 0 && fs::exists(path / kManifestFile, ignored)) found.push_back(path);
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return step_of(a) > step_of(b); });
  return found;
}

Result<fs::path> latest_checkpoint(const fs::path& directory) {
  auto found = list_checkpoints(directory);
  if (!found.empty()) return found.front();
  return make_error(ErrorCode::not_found, "{}: no complete checkpoint (step-N with a {}) is there",
                    directory.string(), kManifestFile);
}

std::string older_neighbour_hint(const fs::path& checkpoint) {
  int64_t step = step_of(checkpoint);
  for (const fs::path& other : list_checkpoints(fs::absolute(checkpoint).parent_path()))
    if (step_of(other) < step) return fmt::format("; try {}, the one before it", other.filename().string());
  return "";
}

Error damaged_checkpoint(const fs::path& checkpoint, std::string_view what) {
  return make_error(ErrorCode::data_loss, "checkpoint {}: {}{}", without_slash(checkpoint).filename().string(),
                    what, older_neighbour_hint(checkpoint));
}

void remove_leftovers(const fs::path& directory) {
  std::error_code ignored;
  for (const fs::path& path : entries(directory))
    if (path.filename().string().starts_with(kTemporary)) fs::remove_all(path, ignored);
}

Status publish_directory(const fs::path& temporary, const fs::path& final_path) {
  std::error_code ignored;
  bool replaces = fs::exists(final_path, ignored);
  unsigned flags = replaces ? RENAME_EXCHANGE : 0u;
  if (::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, final_path.c_str(), flags) != 0) {
    if (!replaces || (errno != EINVAL && errno != ENOSYS)) return system_error("rename", final_path, errno);
    remove_checkpoint(final_path);  // a file system that cannot exchange
    if (::rename(temporary.c_str(), final_path.c_str()) != 0) return system_error("rename", final_path, errno);
  }
  TESSERA_RETURN_IF_ERROR(sync_directory(final_path.parent_path()));
  if (replaces) fs::remove_all(temporary, ignored);
  return {};
}

void remove_old(const fs::path& directory, int64_t step, int64_t keep) {
  if (keep <= 0) return;
  int64_t kept = 0;
  for (const fs::path& path : list_checkpoints(directory))
    if (step_of(path) <= step && ++kept > keep) remove_checkpoint(path);
}

}  // namespace tessera::checkpoint
