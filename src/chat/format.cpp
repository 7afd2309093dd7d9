#include "chat/format.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "chat/characters.h"
#include "chat/filters.h"

namespace tessera::chat {

size_t byte_offset(std::string_view text, int64_t character) {
  size_t at = 0;
  for (; at < text.size(); ++at)
    if ((text[at] & 0xC0) != 0x80 && character-- == 0) break;
  return at;
}

std::string escaped(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '\'')
      out += "&#39;";
    else if (c == '"')
      out += "&#34;";
    else
      out += c;
  }
  return out;
}

Value repeated(Budget& budget, const std::string& text, int64_t times) {
  times = std::max<int64_t>(times, 0);
  if (text.empty() || times == 0) return "";
  if (times > INT32_MAX) throw TemplateError("it makes too much text");
  budget.text(static_cast<uint64_t>(times) * text.size());
  std::string out;
  for (int64_t i = 0; i < times; ++i) out += text;
  return out;
}

Value padded(Budget& budget, const std::string& text, int64_t width, bool left, bool right,
             const std::string& fill) {
  int64_t missing = width - num_characters(text);
  if (missing <= 0) return text;
  // As CPython's str.center(): an odd rest goes left when the width is odd.
  int64_t before = left && right ? missing / 2 + (missing & width & 1) : left ? missing : 0;
  return *repeated(budget, fill, before).text() + text + *repeated(budget, fill, missing - before).text();
}

Value replace_within(Budget& budget, const std::string& text, const std::string& old, const std::string& by,
                     int64_t most) {
  uint64_t count = 0;
  if (old.empty()) count = text.size() + 1;
  for (size_t at = old.empty() ? text.npos : text.find(old); at != text.npos;
       at = text.find(old, at + old.size()))
    ++count;
  if (most >= 0) count = std::min(count, static_cast<uint64_t>(most));
  if (by.size() > 0 && count > (uint64_t{1} << 40) / by.size()) throw TemplateError("it makes too much text");
  budget.text(text.size() + count * by.size());
  return replace(text, old, by, most);
}

namespace {

// What a pattern takes its values from, in order or by name.
class Source {
 public:
  explicit Source(const Arguments& arguments) : arguments_(arguments) {}
  const Value& next() {
    if (next_ >= arguments_.positional.size())
      throw TemplateError("the pattern needs more values than it gets");
    return arguments_.positional[next_++];
  }
  const Value& at(size_t i) const {
    if (i >= arguments_.positional.size()) throw TemplateError("the pattern needs more values than it gets");
    return arguments_.positional[i];
  }
  const Value& named(std::string_view name) const {
    for (const auto& [key, value] : arguments_.named)
      if (key == name) return value;
    throw TemplateError(fmt::format("the pattern needs a value '{}'", name));
  }
  bool used_all() const { return next_ == arguments_.positional.size(); }

 private:
  const Arguments& arguments_;
  size_t next_ = 0;
};

int64_t number_of(std::string_view digits) {
  if (digits.size() > 6) throw TemplateError("a number in the pattern is too large");
  return digits.empty() ? 0 : std::stoll(std::string(digits));
}

// One % specification: flags, width, precision, kind.
struct Specification {
  std::string flags, width, precision;
  bool has_precision = false;
  char kind = 0;
};

std::string percent_text(Env& env, const Specification& spec, const Value& value) {
  switch (spec.kind) {
    case 's':
    case 'r': {
      std::string text = spec.kind == 's' ? text_of(env, value) : value.repr();
      return spec.has_precision ? text.substr(0, byte_offset(text, number_of(spec.precision))) : text;
    }
    case 'd':
    case 'i':
    case 'u':
      if (!value.is_number())
        throw TemplateError(fmt::format("%{} needs a number, not a {}", spec.kind, value.type_name()));
      return std::to_string(value.is_float() ? static_cast<int64_t>(value.number()) : value.integer());
    case 'f':
    case 'F':
    case 'e':
    case 'g': {
      if (!value.is_number())
        throw TemplateError(fmt::format("%{} needs a number, not a {}", spec.kind, value.type_name()));
      auto precision =
          static_cast<int>(std::min<int64_t>(spec.has_precision ? number_of(spec.precision) : 6, 300));
      char buffer[700];
      std::string pattern = fmt::format("%.*{}", spec.kind);
      return {buffer, static_cast<size_t>(
                          std::snprintf(buffer, sizeof buffer, pattern.c_str(), precision, value.number()))};
    }
    default:
      throw TemplateError(fmt::format("the format '%{}' is not supported", spec.kind));
  }
}

std::string aligned(Env& env, const Specification& spec, std::string text) {
  bool numeric = spec.kind != 's' && spec.kind != 'r', left = spec.flags.find('-') != std::string::npos;
  std::string sign;
  if (numeric && text[0] != '-' && spec.flags.find_first_of("+ ") != std::string::npos)
    sign = spec.flags.find('+') != std::string::npos ? "+" : " ";
  if (numeric && text[0] == '-') sign = std::exchange(text, text.substr(1))[0];
  bool zeros = numeric && !left && spec.flags.find('0') != std::string::npos;
  int64_t width = number_of(spec.width);
  if (zeros) return sign + *padded(env.budget, text, width - std::ssize(sign), true, false, "0").text();
  return *padded(env.budget, sign + text, width, !left, left).text();
}

std::string percent(Env& env, const std::string& pattern, Source& source) {
  std::string out;
  size_t at = 0;
  auto run = [&](std::string_view set) {
    size_t begin = at;
    while (at < pattern.size() && set.find(pattern[at]) != set.npos) ++at;
    return pattern.substr(begin, at - begin);
  };
  while (at < pattern.size()) {
    if (pattern[at] != '%') {
      out += pattern[at++];
      continue;
    }
    ++at;
    std::optional<std::string> name;
    if (at < pattern.size() && pattern[at] == '(') {
      size_t end = pattern.find(')', at);
      if (end == pattern.npos) throw TemplateError("'%(' is not closed");
      name = pattern.substr(at + 1, end - at - 1);
      at = end + 1;
    }
    Specification spec{.flags = run("-+ 0#"), .width = run("0123456789")};
    if (at < pattern.size() && pattern[at] == '.') {
      ++at;
      spec.has_precision = true;
      spec.precision = run("0123456789");
    }
    if (at >= pattern.size()) throw TemplateError("the pattern ends inside a format");
    spec.kind = pattern[at++];
    if (spec.kind == '%')
      out += '%';
    else
      out += aligned(env, spec, percent_text(env, spec, name ? source.named(*name) : source.next()));
  }
  return out;
}

}  // namespace

Value format_percent(Env& env, const std::string& pattern, const Arguments& arguments) {
  Source source(arguments);
  std::string out = percent(env, pattern, source);
  if (arguments.named.empty() && !source.used_all())
    throw TemplateError("not all values were used by the pattern");
  return out;
}

Value format_percent(Env& env, const std::string& pattern, const Value& values) {
  Arguments arguments;
  const Sequence* several = values.sequence();
  if (several && several->kind == Sequence::tuple)
    arguments.positional = several->items;
  else
    arguments.positional = {values};
  if (const Dict* dict = values.dict()) {
    for (const auto& [key, value] : dict->items()) arguments.named.emplace_back(key.str(), value);
    if (pattern.find("%(") != pattern.npos) arguments.positional.clear();
  }
  Source source(arguments);
  std::string out = percent(env, pattern, source);
  bool may_ignore =
      values.dict() || (several && several->kind == Sequence::list);  // they have [], says CPython
  if (!source.used_all() && !may_ignore) throw TemplateError("not all values were used by the pattern");
  return out;
}

Value format_braces(Env& env, const std::string& pattern, const Arguments& arguments) {
  Source source(arguments);
  std::string out;
  for (size_t at = 0; at < pattern.size(); ++at) {
    char c = pattern[at], following = at + 1 < pattern.size() ? pattern[at + 1] : ' ';
    if ((c == '{' || c == '}') && following == c) {
      out += c;
      ++at;
    } else if (c == '}') {
      throw TemplateError("a single '}' in a format");
    } else if (c == '{') {
      size_t end = pattern.find('}', at);
      if (end == pattern.npos) throw TemplateError("a single '{' in a format");
      std::string field = pattern.substr(at + 1, end - at - 1);
      if (field.find_first_of(".[:!{") != field.npos)
        throw TemplateError(fmt::format("the format '{{{}}}' is not supported", field));
      bool digits = field.find_first_not_of("0123456789") == field.npos;
      const Value& value = field.empty() ? source.next()
                           : digits      ? source.at(static_cast<size_t>(number_of(field)))
                                         : source.named(field);
      out += text_of(env, value);
      at = end;
    } else {
      out += c;
    }
  }
  env.budget.text(out.size());
  return out;
}

}  // namespace tessera::chat
