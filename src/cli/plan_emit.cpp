// --emit of tessera plan: what another tool reads, on standard output.
#include <cstdio>

#include "cli/plan_commands.h"

namespace tessera::cli {

void print_emitted(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
}

Status check_emit(const std::string& emit, const std::string& json) {
  if (emit.empty() || json != "-") return {};
  return invalid("--emit {} and --json - both write to standard output; give --json a file", emit);
}

}  // namespace tessera::cli
