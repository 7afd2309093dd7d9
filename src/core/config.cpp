#include "core/config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/file.h"
#include "core/nearest.h"
#include "core/toml.h"

namespace tessera {

using nlohmann::json;

namespace {

Error wrong_kind(const json& value, std::string_view expected) {
  return invalid("got {} ({}), expected {}", to_toml(value), kind_name(value), expected);
}

template <class Integer>
Status convert_integer(const json& value, Integer* field) {
  if (!value.is_number_integer()) return wrong_kind(value, "an integer");
  auto wide = value.get<int64_t>();
  bool fits =
      std::is_unsigned_v<Integer> ? wide >= 0 : wide == static_cast<int64_t>(static_cast<Integer>(wide));
  if (!fits) return wrong_kind(value, std::is_unsigned_v<Integer> ? "0 or more" : "a smaller integer");
  *field = static_cast<Integer>(wide);
  return {};
}

Status convert(const json& value, int64_t* field) {
  return convert_integer(value, field);
}
Status convert(const json& value, uint64_t* field) {
  return convert_integer(value, field);
}
Status convert(const json& value, int* field) {
  return convert_integer(value, field);
}
Status convert(const json& value, double* field) {
  if (!value.is_number()) return wrong_kind(value, "a number");
  *field = value.get<double>();
  return {};
}
Status convert(const json& value, bool* field) {
  if (!value.is_boolean()) return wrong_kind(value, "true or false");
  *field = value.get<bool>();
  return {};
}
Status convert(const json& value, std::string* field) {
  if (!value.is_string()) return wrong_kind(value, "a string");
  *field = value.get<std::string>();
  return {};
}
Status convert(const json& value, std::vector<std::string>* field) {
  if (!value.is_array()) return wrong_kind(value, "a list of strings");
  for (const json& member : value)
    if (!member.is_string()) return wrong_kind(value, "a list of strings");
  *field = value.get<std::vector<std::string>>();
  return {};
}

// A scalar, or a list of scalars joined by '-', as the text forms of layouts write it.
std::string plain_text(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return to_toml(value);
  std::string text;
  for (const json& member : value) text += (text.empty() ? "" : "-") + plain_text(member);
  return text;
}

std::string short_form(const json& table) {
  std::string text;
  for (const auto& [key, value] : table.items())
    text += fmt::format("{}{}={}", text.empty() ? "" : ",", key, plain_text(value));
  return text;
}

json comma_list(std::string_view text) {
  json list = json::array();
  while (!text.empty()) {
    size_t end = std::min(text.find(','), text.size());
    list.push_back(std::string(text.substr(0, end)));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return list;
}

std::string first_section(const std::string& key) {
  return key.substr(0, key.find('.'));
}
std::string last_name(const std::string& key) {
  return key.substr(key.rfind('.') + 1);
}

json* member_at(json* root, std::string_view path) {
  for (json* at = root;;) {
    size_t dot = path.find('.');
    json* next = &(*at)[std::string(path.substr(0, dot))];
    if (dot == std::string_view::npos) return next;
    if (!next->is_object()) *next = json::object();
    at = next;
    path.remove_prefix(dot + 1);
  }
}

}  // namespace

template <class T>
void Config::bind_value(std::string key, T* field, std::string help) {
  Binding binding;
  binding.help = std::move(help);
  binding.is_text = std::is_same_v<T, std::string>;
  binding.assign = [field](const json& value) { return convert(value, field); };
  binding.read = [field] { return json(*field); };
  add(std::move(key), std::move(binding));
}

void Config::bind(std::string key, int64_t* field, std::string help) {
  bind_value(key, field, help);
}
void Config::bind(std::string key, uint64_t* field, std::string help) {
  bind_value(key, field, help);
}
void Config::bind(std::string key, int* field, std::string help) {
  bind_value(key, field, help);
}
void Config::bind(std::string key, double* field, std::string help) {
  bind_value(key, field, help);
}
void Config::bind(std::string key, bool* field, std::string help) {
  bind_value(key, field, help);
}
void Config::bind(std::string key, std::string* field, std::string help) {
  bind_value(key, field, help);
}
void Config::bind(std::string key, std::vector<std::string>* field, std::string help) {
  bind_value(key, field, help);
}

void Config::bind_parsed(std::string key, std::string help, std::function<Status(std::string_view)> assign,
                         std::function<std::string()> print) {
  Binding binding;
  binding.help = std::move(help);
  binding.is_text = true;
  binding.assign = [assign = std::move(assign)](const json& value) -> Status {
    if (value.is_object()) return assign(short_form(value));
    if (!value.is_string()) return wrong_kind(value, "a string");
    return assign(value.get_ref<const std::string&>());
  };
  binding.read = [print = std::move(print)] { return json(print()); };
  add(std::move(key), std::move(binding));
}

void Config::bind_table(std::string key, json* field, std::string help) {
  Binding binding;
  binding.help = std::move(help);
  binding.is_table = true;
  binding.assign = [field](const json& value) -> Status {
    if (!value.is_object()) return wrong_kind(value, "a table");
    if (field->is_object())
      field->merge_patch(value);
    else
      *field = value;
    return {};
  };
  binding.read = [field] { return field->is_object() ? *field : json::object(); };
  add(std::move(key), std::move(binding));
}

void Config::add(std::string key, Binding binding) {
  order_.push_back(key);
  bool fresh = bindings_.emplace(key, std::move(binding)).second;
  TESSERA_REQUIRE(fresh, "configuration key {} is bound twice", key);
}

Status Config::load_file(const std::filesystem::path& path) {
  TESSERA_ASSIGN_OR_RETURN(std::string text, read_file(path));
  return load_text(text, path.string());
}

Status Config::load_text(std::string_view text, std::string name) {
  TESSERA_ASSIGN_OR_RETURN(TomlDocument document, parse_toml(text, std::move(name)));
  return load_table(document.root, "", document);
}

Status Config::load_table(const json& table, const std::string& path, const TomlDocument& document) {
  for (const auto& [name, value] : table.items()) {
    std::string key = path.empty() ? name : path + "." + name;
    if (bindings_.count(key)) {
      TESSERA_RETURN_IF_ERROR(assign(key, value, document.where(key)));
    } else if (value.is_object() && !value.empty()) {
      TESSERA_RETURN_IF_ERROR(load_table(value, key, document));
    } else {
      return unknown_key(key, document.where(key));
    }
  }
  return {};
}

Status Config::assign(const std::string& key, const json& value, const std::string& where) {
  Status status = bindings_.at(key).assign(value);
  if (!status.ok()) return status.error().within(key).within(where);
  sources_[key] = where;
  return {};
}

const std::string* Config::table_above(const std::string& key) const {
  for (const auto& [name, binding] : bindings_)
    if (binding.is_table && key.rfind(name + ".", 0) == 0) return &name;
  return nullptr;
}

Status Config::set(std::string_view assignment) {
  size_t equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0)
    return invalid("command line: got '{}', expected key=value", assignment);
  std::string key(assignment.substr(0, equals)), text(assignment.substr(equals + 1));
  auto value = parse_toml_value(text);
  if (const std::string* table = table_above(key)) {
    json patch = json::object();
    *member_at(&patch, std::string_view(key).substr(table->size() + 1)) = value.ok() ? *value : json(text);
    return assign(*table, patch, "command line");
  }
  auto found = bindings_.find(key);
  if (found == bindings_.end()) return unknown_key(key, "command line");
  bool quoted_text = value.ok() && value->is_string();
  if (found->second.is_text && !quoted_text) return assign(key, text, "command line");
  if (found->second.read().is_array() && !(value.ok() && value->is_array()))
    return assign(key, comma_list(text), "command line");
  return assign(key, value.ok() ? *value : json(text), "command line");
}

Status Config::set_all(const std::vector<std::string>& assignments) {
  for (const std::string& assignment : assignments) TESSERA_RETURN_IF_ERROR(set(assignment));
  return {};
}

Error Config::unknown_key(const std::string& key, const std::string& where) const {
  std::vector<std::string> inside, elsewhere;
  for (const std::string& known : order_) {
    if (known.rfind(key + ".", 0) == 0) inside.push_back(known);
    if (last_name(known) == last_name(key)) elsewhere.push_back(known);
  }
  if (!inside.empty())
    return invalid("{}: {} is a section, expected one of its keys: {}", where, key, fmt::join(inside, ", "));
  std::string hint = did_you_mean(key, order_);
  if (!elsewhere.empty()) hint = fmt::format("; did you mean '{}'?", elsewhere.front());
  return invalid("{}: unknown key '{}'{}", where, key, hint);
}

std::string Config::source(const std::string& key) const {
  TESSERA_REQUIRE(bindings_.count(key), "{} is not a configuration key", key);
  auto found = sources_.find(key);
  return found == sources_.end() ? "default" : found->second;
}

std::string Config::explain() const {
  std::vector<std::string> lines;
  size_t width = 0;
  for (const std::string& key : order_) {
    lines.push_back(fmt::format("{} = {}", key, to_toml(bindings_.at(key).read())));
    width = std::max(width, std::min<size_t>(lines.back().size(), 56));
  }
  std::string text, section;
  for (size_t i = 0; i < order_.size(); ++i) {
    if (i > 0 && first_section(order_[i]) != section) text += "\n";
    section = first_section(order_[i]);
    text += fmt::format("{:<{}}  # {}: {}\n", lines[i], width, source(order_[i]), bindings_.at(order_[i]).help);
  }
  return text;
}

}  // namespace tessera
