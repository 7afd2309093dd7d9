// Filters of numbers and texts.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "chat/characters.h"
#include "chat/filters.h"
#include "chat/format.h"

namespace tessera::chat {

namespace {

std::optional<int64_t> digits_to_integer(const std::string& padded_text, int64_t base) {
  std::string text = strip_right(strip_left(padded_text));
  const char *begin = text.data(), *end = begin + text.size();
  if (begin != end && *begin == '+' && text.find('-') == text.npos) ++begin;
  int64_t number = 0;
  auto [stop, error] = std::from_chars(begin, end, number, static_cast<int>(base));
  if (error == std::errc::result_out_of_range) throw TemplateError("a number is too large");
  return error == std::errc() && stop == end ? std::optional(number) : std::nullopt;
}

}  // namespace

std::string text_of(Env& env, const Value& value) {
  env.budget.text(value.extent().weight * 16);
  return value.str();
}

bool is_given(const Given& given, size_t i) {
  return given.find(i) && !given.find(i)->is_none();
}

Value absolute(const Value& value) {
  if (value.is_float()) return std::fabs(value.number());
  if (!value.is_number()) throw TemplateError(fmt::format("abs() needs a number, not a {}", value.type_name()));
  return std::abs(value.integer());
}

Value rounded(const Value& value, const Given& given) {
  if (!value.is_number())
    throw TemplateError(fmt::format("round() needs a number, not a {}", value.type_name()));
  int64_t precision = given.integer(0, 0);
  if (precision < 0 || precision > 17) throw TemplateError("round() takes a precision from 0 to 17");
  std::string method = given.find(1) ? given.text(1) : "common";
  double scale = std::pow(10.0, static_cast<double>(precision));
  if (method == "ceil") return std::ceil(value.number() * scale) / scale;
  if (method == "floor") return std::floor(value.number() * scale) / scale;
  if (method != "common") throw TemplateError("round() knows 'common', 'ceil' and 'floor'");
  if (!value.is_float()) return value.integer();
  // printf rounds the exact value, ties to even, as Python does.
  std::string text = fmt::format("{:.{}f}", value.number(), precision);
  return std::strtod(text.c_str(), nullptr);
}

std::optional<double> to_real(const Value& value) {
  if (value.is_number()) return value.number();
  if (value.is_undefined()) throw_undefined(value);
  if (!value.text()) return std::nullopt;
  std::string text = strip_right(strip_left(*value.text()));
  bool plain = !text.empty() && text.find_first_not_of("0123456789+-.eE") == text.npos;
  char* end = nullptr;
  double number = std::strtod(text.c_str(), &end);
  return plain && !*end ? std::optional(number) : std::nullopt;
}

Value to_integer(const Value& value, const Given& given) {
  if (value.text()) {
    int64_t base = given.integer(1, 10);
    if (base < 2 || base > 36) throw TemplateError("int() takes a base from 2 to 36");
    if (auto number = digits_to_integer(*value.text(), base)) return *number;
  }
  if (value.is_integer() || value.is_bool()) return value.integer();
  auto real = to_real(value);
  if (!real || !std::isfinite(*real)) return given.value(0, 0);
  if (std::fabs(*real) >= 9.2e18) throw TemplateError("a number is too large");
  return static_cast<int64_t>(*real);
}

Value title_words(const std::string& bytes) {
  std::u32string text = decode(bytes);
  std::string out;
  bool starts = true;
  for (char32_t c : text) {
    bool separates = is_space(c) || std::u32string_view(U"-({[<").find(c) != std::u32string_view::npos;
    std::string one = encode({&c, 1});
    out += starts ? upper(one) : lower(one);
    starts = separates;
  }
  return out;
}

Value indent(Env& env, const Value& value, const Given& given) {
  if (!value.text()) throw TemplateError(fmt::format("indent needs a str, not a {}", value.type_name()));
  std::string text = text_of(env, value) + "\n", out;
  std::string by = given.find(0) && given.find(0)->text()
                       ? *given.find(0)->text()
                       : *repeated(env.budget, " ", given.integer(0, 4)).text();
  auto lines = split_lines(text, false);
  env.budget.text(text.size());
  for (size_t i = 0; i < lines.size(); ++i) {
    bool indents = i == 0 ? given.flag(1) : given.flag(2) || !lines[i].empty();
    env.budget.text(by.size());
    if (i > 0) out += '\n';
    if (indents) out += by;
    out += lines[i];
  }
  return out;
}

Value truncate(Env& env, const Value& value, const Given& given) {
  std::string end = given.find(2) ? given.text(2) : "...";
  int64_t length = given.integer(0, 255), leeway = is_given(given, 3) ? given.integer(3, 5) : 5,
          keep = length - num_characters(end);
  if (keep < 0 || leeway < 0) throw TemplateError("truncate() needs a length of at least that of its end");
  if (length_of(value).integer() <= length + leeway) return value;
  if (!value.text()) throw TemplateError(fmt::format("a {} cannot be truncated", value.type_name()));
  std::string text = text_of(env, value);
  std::string head = text.substr(0, byte_offset(text, keep));
  return (given.flag(1) ? head : head.substr(0, head.rfind(' '))) + end;
}

Value json_text(Env& env, const Value& value, const Given& given) {
  JsonStyle style{.ensure_ascii = given.flag(0), .sort_keys = given.flag(3)};
  if (is_given(given, 1)) {
    style.indent = std::clamp<int64_t>(given.integer(1, 0), 0, 64);
    style.item_separator = ",";
  }
  if (is_given(given, 2)) {
    auto separators = given.find(2)->elements();
    if (separators.size() != 2 || !separators[0].text() || !separators[1].text())
      throw TemplateError("separators must be two texts");
    style.item_separator = *separators[0].text();
    style.key_separator = *separators[1].text();
  }
  uint64_t per_node = 16 + style.item_separator.size() + style.key_separator.size();
  if (style.indent)
    per_node += static_cast<uint64_t>(*style.indent) * static_cast<uint64_t>(value.extent().depth + 1);
  env.budget.text(value.extent().weight * per_node);
  return to_json(value, style);
}

}  // namespace tessera::chat
