#include "plan/assignments.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <sstream>

#include "core/nearest.h"

namespace tessera::plan {
namespace {

// The number at the front of `text` and what follows it.
struct Leading {
  double value = NAN;
  std::string rest;
};
Leading leading_number(const std::string& text) {
  char* end = nullptr;
  double value = std::strtod(text.c_str(), &end);
  if (end == text.c_str()) return {};
  std::string rest = end;
  rest.erase(0, std::min(rest.find_first_not_of(' '), rest.size()));
  return {value, rest};
}

Status assign_one(const std::string& what, const std::string& part, const std::vector<NumberOption>& keys) {
  size_t equals = part.find('=');
  if (equals == std::string::npos) return invalid("{}: '{}' has no '=', expected key=value", what, part);
  std::string key = part.substr(0, equals);
  std::vector<std::string> names;
  for (const NumberOption& option : keys) {
    names.emplace_back(option.key);
    if (key != option.key) continue;
    Leading number = leading_number(part.substr(equals + 1));
    if (!(number.value >= option.least && number.value <= option.most) || !number.rest.empty())
      return invalid("{}: {} = '{}', expected a number {}", what, key, part.substr(equals + 1),
                     option.most < 1e300 ? fmt::format("from {:g} to {:g}", option.least, option.most)
                                         : fmt::format("of at least {:g}", option.least));
    *option.into = number.value;
    return {};
  }
  return invalid("{}: unknown key '{}'{}; known: {}", what, key, did_you_mean(key, names),
                 fmt::join(names, ", "));
}

}  // namespace

Status assign_numbers(const std::string& what, const std::string& text, const std::vector<NumberOption>& keys) {
  std::stringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) TESSERA_RETURN_IF_ERROR(assign_one(what, part, keys));
  return {};
}

Result<double> parse_with_unit(const std::string& what, const std::string& text,
                               const std::vector<UnitName>& units) {
  Leading number = leading_number(text);
  std::vector<std::string> names;
  for (const UnitName& unit : units) {
    names.emplace_back(unit.name);
    if (number.rest == unit.name && number.value > 0 && std::isfinite(number.value))
      return number.value * unit.factor;
  }
  return invalid("{} '{}': expected a positive number with one of the units {}", what, text,
                 fmt::join(names, ", "));
}

}  // namespace tessera::plan
