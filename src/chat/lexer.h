// A template's source as tokens. White space control is Jinja's with trim_blocks and lstrip_blocks on, as
// Hugging Face sets them: the newline after a block or comment goes, and so does the white space in front of
// one that is the first on its line. Threads: any.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tessera::chat {

struct Token {
  enum Kind { text, block_begin, block_end, print_begin, print_end, name, integer, real, string, op, end };
  Kind kind;
  std::string value;  // of a string: what it stands for
  int line;

  bool is(Kind k, std::string_view v) const { return kind == k && value == v; }
  bool is_op(std::string_view v) const { return is(op, v); }
  bool is_name(std::string_view v) const { return is(name, v); }
};

// Throws TemplateError with the line.
std::vector<Token> tokenize(std::string_view source);

}  // namespace tessera::chat
