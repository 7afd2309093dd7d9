// Whole-file reads and writes with readable errors. A write is atomic: a temporary file beside the target,
// flushed to disk, then renamed, so a reader sees the old content or the new and never a part.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "core/result.h"

namespace tessera {

Result<std::string> read_file(const std::filesystem::path& path);
Status write_file_atomically(const std::filesystem::path& path, std::string_view content);

// Text of errno with its number: "No space left on device (28)".
std::string errno_text(int number);

// Error of a failed system call on a path; the code follows errno (ENOENT: not_found, ENOSPC:
// resource_exhausted).
Error system_error(std::string_view operation, const std::filesystem::path& path, int number);

}  // namespace tessera
