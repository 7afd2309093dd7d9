#include "plan/training/memory_constants.h"

#include <map>

#include "core/toml.h"
#include "plan/embedded.h"

namespace tessera::plan {
namespace {

std::map<std::string, MemoryConstants> read_constants() {
  std::map<std::string, MemoryConstants> all;
  for (const EmbeddedFile& file : embedded_files()) {
    if (file.path != "constants/memory.toml") continue;
    auto document = parse_toml(file.text, file.path);
    TESSERA_REQUIRE(document.ok(), "{}", document.error().message);
    for (const auto& [name, table] : document->root.items())
      all[name] = {.bucket_bytes = table.at("bucket_bytes"),
                   .fragmentation = table.at("fragmentation"),
                   .context_bytes = table.at("context_bytes"),
                   .half_width = table.at("half_width"),
                   .least_fragmentation = table.at("least_fragmentation"),
                   .least_context_bytes = table.at("least_context_bytes")};
  }
  return all;
}

}  // namespace

const MemoryConstants& memory_constants(Framework framework) {
  static const std::map<std::string, MemoryConstants> all = read_constants();
  auto found = all.find(to_string(framework));
  TESSERA_REQUIRE(found != all.end(), "memory.toml has no table for {}", to_string(framework));
  return found->second;
}

}  // namespace tessera::plan
