// TOML text as JSON values, with the line of every key so that errors can point at it. toml++ itself is
// included by toml.cpp.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "core/result.h"

namespace tessera {

struct TomlDocument {
  nlohmann::json root;                               // an object; tables are objects, dates are strings
  std::map<std::string, int> lines;                  // dotted path of every key and table -> line, from 1
  std::string name;                                  // of the file, for messages
  std::string where(const std::string& path) const;  // "examples/moe.toml:12", or the name alone
};

// Errors: malformed text, as "NAME:LINE:COLUMN: what".
Result<TomlDocument> parse_toml(std::string_view text, std::string name);

// One TOML value, such as `3`, `[1, 2]` or `"text"`.
Result<nlohmann::json> parse_toml_value(std::string_view text);

// The TOML text of a value. REQUIRES: no null inside.
std::string to_toml(const nlohmann::json& value);

// Its kind in the words of a user: "integer", "string", "list", "table", ...
const char* kind_name(const nlohmann::json& value);

}  // namespace tessera
