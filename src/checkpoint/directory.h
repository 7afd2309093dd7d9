// A run's directory of checkpoints: DIR/step-N, each complete or absent. A save is built in
// DIR/.tmp-step-N-XXXX and renamed into place; what a killed save leaves behind is never taken for a checkpoint
// and is removed by the next save.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace tessera::checkpoint {

std::filesystem::path step_directory(const std::filesystem::path& directory, int64_t step);
// "a/step-7/" and "a/./step-7" as "a/step-7", which has a parent and a name.
std::filesystem::path without_slash(const std::filesystem::path& path);
// A fresh name for a save under way; differs between saves, so that one left over or still running elsewhere is
// never mixed up with it. Names with another prefix are not taken for saves.
std::string temporary_name(int64_t step, std::string_view prefix = ".tmp-");
// N of ".../step-N", or -1.
int64_t step_of(const std::filesystem::path& checkpoint);

// Checkpoints that were published, newest first. A directory that does not exist has none.
std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& directory);
// Errors: not_found.
Result<std::filesystem::path> latest_checkpoint(const std::filesystem::path& directory);
// "; try step-1100, the one before it" when the checkpoint has an older neighbour, else "".
std::string older_neighbour_hint(const std::filesystem::path& checkpoint);
// data_loss: "checkpoint step-1200: WHAT; try step-1100, ..."
Error damaged_checkpoint(const std::filesystem::path& checkpoint, std::string_view what);

// Removes what killed saves left.
void remove_leftovers(const std::filesystem::path& directory);
// Renames the temporary directory to its final name, and makes that durable. A checkpoint of the same name is
// exchanged in one operation and removed afterwards.
Status publish_directory(const std::filesystem::path& temporary, const std::filesystem::path& final_path);
// Removes checkpoints older than `step` so that `keep` remain, `step` among them; newer ones are not touched.
// keep 0: all remain.
void remove_old(const std::filesystem::path& directory, int64_t step, int64_t keep);

}  // namespace tessera::checkpoint
