// The arguments that say which text a command reads: --data, --document-separator, --max-bytes.
#pragma once

#include <string>
#include <vector>

#include "data/text_files.h"

namespace CLI {
class App;
}

namespace tessera::cli {

struct TextArguments {
  std::vector<std::string> data;
  std::string separator;  // \n, \t and \\ are understood
  int64_t max_bytes = 0;
};

void add_text_arguments(CLI::App& command, TextArguments& arguments);
Result<data::TextFiles> open_text(const TextArguments& arguments);

}  // namespace tessera::cli
