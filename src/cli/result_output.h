// How a command hands out its result: for people on standard output, for machines as JSON in a file or, with
// "-", on standard output, and then all else goes to standard error.
#pragma once

#include <cstdio>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "core/result.h"

namespace tessera::cli {

// Where text for people goes when --json has this value.
inline std::FILE* text_output(const std::string& json_path) {
  return json_path == "-" ? stderr : stdout;
}

// Does nothing for an empty path. Bytes that are no UTF-8 are replaced.
Status write_json(const std::string& path, const nlohmann::json& result);

}  // namespace tessera::cli
