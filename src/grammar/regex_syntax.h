// The tree of a regular expression.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "grammar/char_set.h"
#include "grammar/regex.h"

namespace tessera::grammar {

struct RegexNode {
  enum Kind { characters, sequence, alternatives, repeat, begin, end };
  Kind kind = sequence;
  CharSet set = {};
  std::vector<RegexNode> parts = {};
  int64_t least = 0, most = -1;  // of repeat; most -1: any
};

// Throws AutomatonError with the place.
RegexNode parse_regex(std::string_view regex, RegexReading reading);

}  // namespace tessera::grammar
