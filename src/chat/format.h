// Text made to a measure or a pattern: padding, replacement, and Python's two kinds of format strings. Each
// pays for its result before it makes it.
#pragma once

#include <string>
#include <string_view>

#include "chat/builtins.h"

namespace tessera::chat {

// Of a character in UTF-8 text; text.size() beyond its end.
size_t byte_offset(std::string_view text, int64_t character);

Value padded(Budget& budget, const std::string& text, int64_t width, bool left, bool right,
             const std::string& fill = " ");
Value replace_within(Budget& budget, const std::string& text, const std::string& old, const std::string& by,
                     int64_t most);
// & < > ' and " as HTML writes them.
std::string escaped(const std::string& text);
Value repeated(Budget& budget, const std::string& text, int64_t times);

// "{} {0} {name} {{".format(...): without conversions and specifications, which throw.
Value format_braces(Env& env, const std::string& pattern, const Arguments& arguments);
// "%s %d %r %.2f %%" % values.
Value format_percent(Env& env, const std::string& pattern, const Value& values);
// The |format filter: positional arguments, or names for "%(name)s".
Value format_percent(Env& env, const std::string& pattern, const Arguments& arguments);

}  // namespace tessera::chat
