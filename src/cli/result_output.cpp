#include "cli/result_output.h"

#include <nlohmann/json.hpp>

#include "core/file.h"

namespace tessera::cli {

Status write_json(const std::string& path, const nlohmann::json& result) {
  if (path.empty()) return {};
  std::string text = result.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  if (path != "-") return write_file_atomically(path, text);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return {};
}

}  // namespace tessera::cli
