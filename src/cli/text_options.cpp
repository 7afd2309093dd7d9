#include "cli/text_options.h"

#include <CLI/CLI.hpp>

namespace tessera::cli {
namespace {

std::string unescaped(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    char next = text[i] == '\\' && i + 1 < text.size() ? text[i + 1] : '\0';
    char meant = next == 'n' ? '\n' : next == 't' ? '\t' : next == '\\' ? '\\' : '\0';
    out += meant == '\0' ? text[i] : meant;
    if (meant != '\0') ++i;
  }
  return out;
}

}  // namespace

void add_text_arguments(CLI::App& command, TextArguments& arguments) {
  command
      .add_option("--data", arguments.data,
                  "UTF-8 text files, or folders whose *.h, *.hpp, *.cpp, *.py, *.txt and *.md are read")
      ->required();
  command.add_option("--document-separator", arguments.separator,
                     "What lies between documents of a file, such as '<|endoftext|>' or '\\n\\n\\n' "
                     "(default: a file is a document)");
  command.add_option("--max-bytes", arguments.max_bytes,
                     "Use about this much text, from files all over the data (default: all)");
}

Result<data::TextFiles> open_text(const TextArguments& arguments) {
  return data::TextFiles::open({arguments.data.begin(), arguments.data.end()},
                               {.separator = unescaped(arguments.separator), .max_bytes = arguments.max_bytes});
}

}  // namespace tessera::cli
