// Methods of str, dict and list that change nothing, with Python's results.
#include <fmt/format.h>

#include <algorithm>

#include "chat/builtin_table.h"
#include "chat/characters.h"
#include "chat/format.h"

namespace tessera::chat {

namespace {

std::optional<std::string_view> optional_text(const Given& given, size_t i) {
  if (!given.find(i) || given.find(i)->is_none()) return std::nullopt;
  return given.text(i);
}

Value strip(const Value& subject, const Given& given, bool left, bool right) {
  std::string text = *subject.text();
  auto what = optional_text(given, 0);
  if (left) text = strip_left(text, what);
  return right ? strip_right(text, what) : text;
}

Value texts(std::vector<std::string> parts) {
  std::vector<Value> items;
  for (std::string& part : parts) items.emplace_back(std::move(part));
  return Value(std::move(items));
}

Value split_text(const Value& subject, const Given& given, bool from_right) {
  auto separator = optional_text(given, 0);
  if (separator && separator->empty()) throw TemplateError("split() needs a separator that is not empty");
  int64_t most = given.integer(1, -1);
  return texts(from_right ? split_from_right(*subject.text(), separator, most)
                          : split(*subject.text(), separator, most));
}

// The part of `subject` between the arguments `start` and `end`, and the position of its start in characters.
struct Window {
  std::string_view text;
  int64_t first;
  bool inside;
};
Window window(const Value& subject, const Given& given, size_t start) {
  const std::string& text = *subject.text();
  int64_t size = num_characters(text);
  auto bound = [&](size_t i, int64_t fallback) {
    int64_t at = given.find(i) && !given.find(i)->is_none() ? given.integer(i, 0) : fallback;
    return std::clamp<int64_t>(at < 0 ? at + size : at, 0, INT32_MAX);
  };
  int64_t first = bound(start, 0), last = std::min(bound(start + 1, size), size);
  if (first > size || first > last) return {"", first, false};
  size_t begin = byte_offset(text, first);
  return {std::string_view(text).substr(begin, byte_offset(text, last) - begin), first, true};
}

bool has_affix(const Value& subject, const Given& given, bool at_start) {
  Window part = window(subject, given, 1);
  auto matches = [&](const std::string& affix) {
    return part.inside && (at_start ? part.text.starts_with(affix) : part.text.ends_with(affix));
  };
  const Sequence* several = given.required(0).sequence();
  if (!several) return matches(given.text(0));
  return std::any_of(several->items.begin(), several->items.end(),
                     [&](const Value& affix) { return affix.text() && matches(*affix.text()); });
}

Value find_text(const Value& subject, const Given& given, bool last) {
  Window part = window(subject, given, 1);
  size_t at = last ? part.text.rfind(given.text(0)) : part.text.find(given.text(0));
  if (!part.inside || at == std::string_view::npos) return -1;
  return part.first + num_characters(part.text.substr(0, at));
}
Value index_of(const Value& subject, const Given& given, bool last) {
  Value found = find_text(subject, given, last);
  if (found.integer() < 0) throw TemplateError("substring not found");
  return found;
}

Value count_text(const Value& subject, const Given& given) {
  Window part = window(subject, given, 1);
  const std::string& what = given.text(0);
  if (!part.inside) return 0;
  if (what.empty()) return num_characters(part.text) + 1;
  int64_t count = 0;
  for (size_t at = part.text.find(what); at != std::string_view::npos;
       at = part.text.find(what, at + what.size()))
    ++count;
  return count;
}

Value replace_text(Env& env, const Value& subject, const Given& given) {
  return replace_within(env.budget, *subject.text(), given.text(0), given.text(1), given.integer(2, -1));
}

Value join_texts(Env& env, const Value& subject, const Given& given) {
  const std::string& separator = *subject.text();
  std::string out;
  bool first = true;
  for (const Value& part : given.required(0).elements()) {
    if (!part.text()) throw TemplateError(fmt::format("join() needs texts, not a {}", part.type_name()));
    env.budget.text(separator.size() + part.text()->size());
    if (!std::exchange(first, false)) out += separator;
    out += *part.text();
  }
  return out;
}

// Every character satisfies, and there is one.
Value all_of_text(const Value& subject, bool (*is)(char32_t)) {
  std::u32string text = decode(*subject.text());
  return !text.empty() && std::all_of(text.begin(), text.end(), is);
}
bool is_alphanumeric(char32_t c) {
  return is_letter(c) || is_digit(c);
}
Value has_case(const Value& subject, bool (*is)(char32_t), bool (*is_other)(char32_t)) {
  std::u32string text = decode(*subject.text());
  return std::any_of(text.begin(), text.end(), is) && std::none_of(text.begin(), text.end(), is_other);
}

Value pad(Env& env, const Value& subject, const Given& given, bool left, bool right) {
  if (given.find(1) && num_characters(given.text(1)) != 1)
    throw TemplateError("the fill must be one character");
  return padded(env.budget, *subject.text(), given.integer(0, 0), left, right,
                given.find(1) ? given.text(1) : " ");
}

Value zero_fill(Env& env, const Value& subject, const Given& given) {
  std::string text = *subject.text(), sign;
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) sign = std::exchange(text, text.substr(1))[0];
  return sign + *padded(env.budget, text, given.integer(0, 0) - std::ssize(sign), true, false, "0").text();
}

Value partition(const Value& subject, const Given& given, bool from_right) {
  const std::string &text = *subject.text(), &separator = given.text(0);
  if (separator.empty()) throw TemplateError("partition() needs a separator that is not empty");
  size_t at = from_right ? text.rfind(separator) : text.find(separator);
  std::vector<Value> parts;
  if (at != std::string::npos)
    parts = {text.substr(0, at), separator, text.substr(at + separator.size())};
  else if (from_right)
    parts = {"", "", text};
  else
    parts = {text, "", ""};
  return Value(Sequence{.items = std::move(parts), .kind = Sequence::tuple});
}

Value remove_affix(const Value& subject, const Given& given, bool at_start) {
  std::string_view text = *subject.text(), affix = given.text(0);
  if (at_start && text.starts_with(affix)) text.remove_prefix(affix.size());
  if (!at_start && text.ends_with(affix)) text.remove_suffix(affix.size());
  return text;
}

const BuiltinTable& text_methods() {
  static const BuiltinTable table = [] {
    BuiltinTable out;
    out.add("upper", {}, [](const Value& self) -> Value { return upper(*self.text()); });
    out.add("lower", {}, [](const Value& self) -> Value { return lower(*self.text()); });
    out.add("casefold", {}, [](const Value& self) -> Value { return lower(*self.text()); });
    out.add("title", {}, [](const Value& self) -> Value { return title(*self.text()); });
    out.add("capitalize", {}, [](const Value& self) -> Value { return capitalize(*self.text()); });
    out.add("swapcase", {}, [](const Value& self) -> Value { return swap_case(*self.text()); });
    out.add("strip", {"chars"},
            [](const Value& self, const Given& given) -> Value { return strip(self, given, true, true); });
    out.add("lstrip", {"chars"},
            [](const Value& self, const Given& given) -> Value { return strip(self, given, true, false); });
    out.add("rstrip", {"chars"},
            [](const Value& self, const Given& given) -> Value { return strip(self, given, false, true); });
    out.add("split", {"sep", "maxsplit"},
            [](const Value& self, const Given& given) -> Value { return split_text(self, given, false); });
    out.add("rsplit", {"sep", "maxsplit"},
            [](const Value& self, const Given& given) -> Value { return split_text(self, given, true); });
    out.add("splitlines", {"keepends"}, [](const Value& self, const Given& given) -> Value {
      return texts(split_lines(*self.text(), given.flag(0)));
    });
    out.add("startswith", {"prefix", "start", "end"},
            [](const Value& self, const Given& given) -> Value { return has_affix(self, given, true); });
    out.add("endswith", {"suffix", "start", "end"},
            [](const Value& self, const Given& given) -> Value { return has_affix(self, given, false); });
    out.add("find", {"sub", "start", "end"},
            [](const Value& self, const Given& given) -> Value { return find_text(self, given, false); });
    out.add("rfind", {"sub", "start", "end"},
            [](const Value& self, const Given& given) -> Value { return find_text(self, given, true); });
    out.add("index", {"sub", "start", "end"},
            [](const Value& self, const Given& given) -> Value { return index_of(self, given, false); });
    out.add("rindex", {"sub", "start", "end"},
            [](const Value& self, const Given& given) -> Value { return index_of(self, given, true); });
    out.add("count", {"sub", "start", "end"},
            [](const Value& self, const Given& given) -> Value { return count_text(self, given); });
    out.add("replace", {"old", "new", "count"}, [](Env& env, const Value& self, const Given& given) -> Value {
      return replace_text(env, self, given);
    });
    out.add("join", {"iterable"}, [](Env& env, const Value& self, const Given& given) -> Value {
      return join_texts(env, self, given);
    });
    out.add("format", {}, [](Env& env, const Value& self, const Given& given) -> Value {
      return format_braces(env, *self.text(), given.raw());
    });
    out.add("isspace", {}, [](const Value& self) -> Value { return all_of_text(self, is_space); });
    out.add("isalpha", {}, [](const Value& self) -> Value { return all_of_text(self, is_letter); });
    out.add("isdigit", {}, [](const Value& self) -> Value { return all_of_text(self, is_digit); });
    out.add("isdecimal", {}, [](const Value& self) -> Value { return all_of_text(self, is_digit); });
    out.add("isnumeric", {}, [](const Value& self) -> Value { return all_of_text(self, is_digit); });
    out.add("isalnum", {}, [](const Value& self) -> Value { return all_of_text(self, is_alphanumeric); });
    out.add("isupper", {}, [](const Value& self) -> Value { return has_case(self, is_upper, is_lower); });
    out.add("islower", {}, [](const Value& self) -> Value { return has_case(self, is_lower, is_upper); });
    out.add("center", {"width", "fillchar"}, [](Env& env, const Value& self, const Given& given) -> Value {
      return pad(env, self, given, true, true);
    });
    out.add("ljust", {"width", "fillchar"}, [](Env& env, const Value& self, const Given& given) -> Value {
      return pad(env, self, given, false, true);
    });
    out.add("rjust", {"width", "fillchar"}, [](Env& env, const Value& self, const Given& given) -> Value {
      return pad(env, self, given, true, false);
    });
    out.add("zfill", {"width"}, [](Env& env, const Value& self, const Given& given) -> Value {
      return zero_fill(env, self, given);
    });
    out.add("partition", {"sep"},
            [](const Value& self, const Given& given) -> Value { return partition(self, given, false); });
    out.add("rpartition", {"sep"},
            [](const Value& self, const Given& given) -> Value { return partition(self, given, true); });
    out.add("removeprefix", {"prefix"},
            [](const Value& self, const Given& given) -> Value { return remove_affix(self, given, true); });
    out.add("removesuffix", {"suffix"},
            [](const Value& self, const Given& given) -> Value { return remove_affix(self, given, false); });
    return out;
  }();
  return table;
}

Value dict_view(const Dict& dict, bool keys, bool values) {
  std::vector<Value> items;
  for (const auto& [key, value] : dict.items()) {
    if (keys && values)
      items.emplace_back(Sequence{.items = {key, value}, .kind = Sequence::tuple});
    else
      items.push_back(keys ? key : value);
  }
  return Value(Sequence{.items = std::move(items), .kind = Sequence::view});
}

const BuiltinTable& dict_methods() {
  static const BuiltinTable table = [] {
    BuiltinTable out;
    out.add("items", {}, [](const Value& self) -> Value { return dict_view(*self.dict(), true, true); });
    out.add("keys", {}, [](const Value& self) -> Value { return dict_view(*self.dict(), true, false); });
    out.add("values", {}, [](const Value& self) -> Value { return dict_view(*self.dict(), false, true); });
    out.add("copy", {}, [](const Value& self) -> Value { return self; });
    out.add("get", {"key", "default"}, [](const Value& self, const Given& given) -> Value {
      const Value* found = self.dict()->find_value(given.required(0));
      return found ? *found : given.value(1, Value());
    });
    return out;
  }();
  return table;
}

const BuiltinTable& list_methods() {
  static const BuiltinTable table = [] {
    BuiltinTable out;
    out.add("copy", {}, [](const Value& self) -> Value { return self; });
    out.add("count", {"value"}, [](const Value& self, const Given& given) -> Value {
      const auto& items = self.sequence()->items;
      return std::count_if(items.begin(), items.end(),
                           [&](const Value& held) { return equal(held, given.required(0)); });
    });
    out.add("index", {"value"}, [](const Value& self, const Given& given) -> Value {
      const auto& items = self.sequence()->items;
      auto found = std::find_if(items.begin(), items.end(),
                                [&](const Value& held) { return equal(held, given.required(0)); });
      if (found == items.end()) throw TemplateError("the value is not in the list");
      return found - items.begin();
    });
    return out;
  }();
  return table;
}

}  // namespace

const Builtin* find_method(const Value& subject, const std::string& name) {
  const BuiltinTable* methods = nullptr;
  if (subject.text()) methods = &text_methods();
  if (subject.dict()) methods = &dict_methods();
  if (subject.sequence() && subject.sequence()->kind <= Sequence::range) methods = &list_methods();
  return methods ? methods->find(name) : nullptr;
}

}  // namespace tessera::chat
