#include "core/toml.h"

// Left at its default configuration: a second configuration in the same program would be a second definition
// of the same inline functions (toml++ 3.3 keeps only part of them apart), and the parser would crash.
#include <toml++/toml.h>

#include <sstream>

namespace tessera {

using nlohmann::json;

namespace {

std::string joined(const std::string& prefix, std::string_view key) {
  return prefix.empty() ? std::string(key) : fmt::format("{}.{}", prefix, key);
}

template <class Date>
std::string date_text(const Date& date) {
  std::ostringstream text;
  text << date;
  return text.str();
}

json to_json(const toml::node& node, const std::string& path, std::map<std::string, int>& lines) {
  if (const auto* table = node.as_table()) {
    json object = json::object();
    for (const auto& [key, value] : *table) {
      std::string child = joined(path, key.str());
      lines[child] = static_cast<int>(key.source().begin.line);
      object[std::string(key.str())] = to_json(value, child, lines);
    }
    return object;
  }
  if (const auto* array = node.as_array()) {
    json list = json::array();
    for (const auto& value : *array) list.push_back(to_json(value, path, lines));
    return list;
  }
  if (const auto* value = node.as_string()) return value->get();
  if (const auto* value = node.as_integer()) return value->get();
  if (const auto* value = node.as_floating_point()) return value->get();
  if (const auto* value = node.as_boolean()) return value->get();
  if (const auto* value = node.as_date()) return date_text(value->get());
  if (const auto* value = node.as_time()) return date_text(value->get());
  return date_text(node.as_date_time()->get());
}

std::string quoted(const std::string& text) {
  return json(text).dump(-1, ' ', false, json::error_handler_t::replace);  // JSON's escapes are TOML's
}

std::string key_text(const std::string& key) {
  bool bare = !key.empty();
  for (unsigned char c : key) bare = bare && (std::isalnum(c) || c == '_' || c == '-');
  return bare ? key : quoted(key);
}

std::string table_text(const json& value) {
  std::string text;
  for (const auto& [key, member] : value.items())
    text += fmt::format("{}{} = {}", text.empty() ? "" : ", ", key_text(key), to_toml(member));
  return "{" + text + "}";
}

std::string list_text(const json& value) {
  std::string text;
  for (const auto& member : value) text += (text.empty() ? "" : ", ") + to_toml(member);
  return "[" + text + "]";
}

}  // namespace

std::string TomlDocument::where(const std::string& path) const {
  auto line = lines.find(path);
  return line == lines.end() ? name : fmt::format("{}:{}", name, line->second);
}

Result<TomlDocument> parse_toml(std::string_view text, std::string name) {
  try {
    TomlDocument document;
    document.root = to_json(toml::parse(text, name), "", document.lines);
    document.name = std::move(name);
    return document;
  } catch (const toml::parse_error& error) {
    return invalid("{}:{}:{}: {}", name, error.source().begin.line, error.source().begin.column,
                   error.description());
  }
}

Result<json> parse_toml_value(std::string_view text) {
  TESSERA_ASSIGN_OR_RETURN(TomlDocument document, parse_toml(fmt::format("value = {}", text), "value"));
  if (document.root.size() != 1) return invalid("'{}' is not a TOML value", text);
  return document.root["value"];
}

std::string to_toml(const json& value) {
  if (value.is_string()) return quoted(value.get_ref<const std::string&>());
  if (value.is_number_float()) {
    std::string text = fmt::format("{}", value.get<double>());
    bool whole = text.find_first_not_of("-0123456789") == std::string::npos;
    return whole ? text + ".0" : text;
  }
  if (value.is_array()) return list_text(value);
  if (value.is_object()) return table_text(value);
  return value.dump();
}

const char* kind_name(const json& value) {
  if (value.is_string()) return "string";
  if (value.is_boolean()) return "true or false";
  if (value.is_number_integer()) return "integer";
  if (value.is_number_float()) return "number";
  if (value.is_array()) return "list";
  return value.is_object() ? "table" : "nothing";
}

}  // namespace tessera
