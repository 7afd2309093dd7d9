#include "spec/config_fields.h"

#include <nlohmann/json.hpp>

namespace tessera {

using nlohmann::json;

bool ConfigFields::present(const char* name) const {
  return config_.contains(name) && !config_[name].is_null();
}

const json& ConfigFields::operator[](const char* name) const {
  return config_[name];
}

void ConfigFields::fail(const std::string& name, const std::string& why) {
  if (!error_) error_ = invalid("config.json: field '{}': {}", name, why);
}

const char* ConfigFields::first_present(Names names) const {
  for (const char* name : names)
    if (present(name)) return name;
  return nullptr;
}

int64_t ConfigFields::integer(const char* name, int64_t least, int64_t fallback) {
  const json& value = config_[name];
  bool whole = value.is_number_integer();
  if (whole && value.get<int64_t>() >= least && value.get<int64_t>() <= (int64_t{1} << 40))
    return value.get<int64_t>();
  fail(name, fmt::format("got {}, expected {}", value.dump().substr(0, 60),
                         least > 0 ? "a positive integer" : "an integer, 0 or more"));
  return fallback;
}

int64_t ConfigFields::positive(Names names) {
  const char* name = first_present(names);
  if (name) return integer(name, 1, 1);
  std::string others = names.size() > 1 ? fmt::format(" (also read: {})", fmt::join(names, ", ")) : "";
  fail(*names.begin(), "it is missing" + others);
  return 1;
}

int64_t ConfigFields::positive_or(Names names, int64_t fallback) {
  const char* name = first_present(names);
  return name ? integer(name, 1, fallback) : fallback;
}

int64_t ConfigFields::count_or(Names names, int64_t fallback) {
  const char* name = first_present(names);
  return name ? integer(name, 0, fallback) : fallback;
}

double ConfigFields::number_or(const char* name, double fallback) {
  if (!present(name)) return fallback;
  if (config_[name].is_number()) return config_[name].get<double>();
  fail(name, fmt::format("got {}, expected a number", config_[name].dump().substr(0, 60)));
  return fallback;
}

bool ConfigFields::flag_or(Names names, bool fallback) {
  const char* name = first_present(names);
  if (!name) return fallback;
  if (config_[name].is_boolean()) return config_[name].get<bool>();
  fail(name, fmt::format("got {}, expected true or false", config_[name].dump().substr(0, 60)));
  return fallback;
}

std::string ConfigFields::text_or(const char* name, const std::string& fallback) {
  if (!present(name)) return fallback;
  if (config_[name].is_string()) return config_[name].get<std::string>();
  fail(name, fmt::format("got {}, expected a text", config_[name].dump().substr(0, 60)));
  return fallback;
}

std::optional<int64_t> ConfigFields::token(const char* name) {
  if (!present(name)) return std::nullopt;
  const json& value = config_[name].is_array() && !config_[name].empty() ? config_[name][0] : config_[name];
  if (value.is_number_integer()) return value.get<int64_t>();
  fail(name, fmt::format("got {}, expected a token id", value.dump().substr(0, 60)));
  return std::nullopt;
}

std::vector<int64_t> ConfigFields::integers(const char* name) {
  std::vector<int64_t> list;
  if (!present(name)) return list;
  if (!config_[name].is_array()) return fail(name, "expected a list of integers"), list;
  for (const json& value : config_[name]) {
    if (!value.is_number_integer() && !value.is_boolean())
      return fail(name, fmt::format("got {} in the list, expected integers", value.dump().substr(0, 60))), list;
    list.push_back(value.is_boolean() ? int64_t{value.get<bool>()} : value.get<int64_t>());
  }
  return list;
}

std::vector<std::string> ConfigFields::texts(const char* name) {
  std::vector<std::string> list;
  if (!present(name)) return list;
  if (!config_[name].is_array()) return fail(name, "expected a list of texts"), list;
  for (const json& value : config_[name]) {
    if (!value.is_string())
      return fail(name, fmt::format("got {} in the list, expected texts", value.dump().substr(0, 60))), list;
    list.push_back(value.get<std::string>());
  }
  return list;
}

}  // namespace tessera
