#include "cli/number_checks.h"

#include <fmt/format.h>

namespace tessera::cli {
namespace {

CLI::Validator at_least(double least, bool itself, const char* name, const char* wanted) {
  auto check = [least, itself, wanted](std::string& text) -> std::string {
    double value = 0;
    bool is_number = CLI::detail::lexical_cast(text, value);  // what is none, its conversion refuses
    if (!is_number || value > least || (itself && value == least)) return "";
    return fmt::format("expected {}, got {}", wanted, text);
  };
  return CLI::Validator(check, name);
}

}  // namespace

CLI::Validator positive_number() {
  return at_least(0, false, "POSITIVE", "a number above 0");
}
CLI::Validator non_negative_number() {
  return at_least(0, true, "NONNEGATIVE", "a number of 0 or more");
}

}  // namespace tessera::cli
