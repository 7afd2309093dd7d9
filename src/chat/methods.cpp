// Methods of str, dict and list that change nothing, with Python's results.
#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "chat/builtins.h"
#include "chat/characters.h"
#include "chat/format.h"

namespace tessera::chat {

namespace {

using Methods = std::unordered_map<std::string, Builtin>;

Methods table(std::vector<Builtin> methods) {
  Methods out;
  for (Builtin& method : methods) out.emplace(method.name, method);
  return out;
}

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

#define METHOD [](Env & env, const Value& self, const Given& given) -> Value
#define UNUSED (void)env, (void)self, (void)given

const Methods& text_methods() {
  static const Methods methods = table({
      {"upper", {}, METHOD { UNUSED; return upper(*self.text());
}
}  // namespace
, {"lower", {}, METHOD{UNUSED;
return lower(*self.text());
}  // namespace tessera::chat
}
, {"casefold", {}, METHOD{UNUSED;
return lower(*self.text());
}
}
, {"title", {}, METHOD{UNUSED;
return title(*self.text());
}
}
, {"capitalize", {}, METHOD{UNUSED;
return capitalize(*self.text());
}
}
, {"swapcase", {}, METHOD{UNUSED;
return swap_case(*self.text());
}
}
, {"strip", {"chars"}, METHOD{UNUSED;
return strip(self, given, true, true);
}
}
, {"lstrip", {"chars"}, METHOD{UNUSED;
return strip(self, given, true, false);
}
}
, {"rstrip", {"chars"}, METHOD{UNUSED;
return strip(self, given, false, true);
}
}
, {"split", {"sep", "maxsplit"}, METHOD{UNUSED;
return split_text(self, given, false);
}
}
, {"rsplit", {"sep", "maxsplit"}, METHOD{UNUSED;
return split_text(self, given, true);
}
}
, {"splitlines", {"keepends"}, METHOD{UNUSED;
return texts(split_lines(*self.text(), given.flag(0)));
}
}
, {"startswith", {"prefix", "start", "end"}, METHOD{UNUSED;
return has_affix(self, given, true);
}
}
, {"endswith", {"suffix", "start", "end"}, METHOD{UNUSED;
return has_affix(self, given, false);
}
}
, {"find", {"sub", "start", "end"}, METHOD{UNUSED;
return find_text(self, given, false);
}
}
, {"rfind", {"sub", "start", "end"}, METHOD{UNUSED;
return find_text(self, given, true);
}
}
, {"index", {"sub", "start", "end"}, METHOD{UNUSED;
return index_of(self, given, false);
}
}
, {"rindex", {"sub", "start", "end"}, METHOD{UNUSED;
return index_of(self, given, true);
}
}
, {"count", {"sub", "start", "end"}, METHOD{UNUSED;
return count_text(self, given);
}
}
, {"replace", {"old", "new", "count"}, METHOD{UNUSED;
return replace_text(env, self, given);
}
}
, {"join", {"iterable"}, METHOD{UNUSED;
return join_texts(env, self, given);
}
}
, {"format", {}, METHOD{UNUSED;
return format_braces(env, *self.text(), given.raw());
}
}
, {"isspace", {}, METHOD{UNUSED;
return all_of_text(self, is_space);
}
}
, {"isalpha", {}, METHOD{UNUSED;
return all_of_text(self, is_letter);
}
}
, {"isdigit", {}, METHOD{UNUSED;
return all_of_text(self, is_digit);
}
}
, {"isdecimal", {}, METHOD{UNUSED;
return all_of_text(self, is_digit);
}
}
, {"isnumeric", {}, METHOD{UNUSED;
return all_of_text(self, is_digit);
}
}
, {"isalnum", {}, METHOD{UNUSED;
return all_of_text(self, is_alphanumeric);
}
}
, {"isupper", {}, METHOD{UNUSED;
return has_case(self, is_upper, is_lower);
}
}
, {"islower", {}, METHOD{UNUSED;
return has_case(self, is_lower, is_upper);
}
}
, {"center", {"width", "fillchar"}, METHOD{UNUSED;
return pad(env, self, given, true, true);
}
}
, {"ljust", {"width", "fillchar"}, METHOD{UNUSED;
return pad(env, self, given, false, true);
}
}
, {"rjust", {"width", "fillchar"}, METHOD{UNUSED;
return pad(env, self, given, true, false);
}
}
, {"zfill", {"width"}, METHOD{UNUSED;
return zero_fill(env, self, given);
}
}
, {"partition", {"sep"}, METHOD{UNUSED;
return partition(self, given, false);
}
}
, {"rpartition", {"sep"}, METHOD{UNUSED;
return partition(self, given, true);
}
}
, {"removeprefix", {"prefix"}, METHOD{UNUSED;
return remove_affix(self, given, true);
}
}
, {"removesuffix", {"suffix"}, METHOD{UNUSED;
return remove_affix(self, given, false);
}
}
,
});
return methods;
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

const Methods& dict_methods() {
  static const Methods methods = table({
      {"items", {}, METHOD { UNUSED; return dict_view(*self.dict(), true, true);
}
}
, {"keys", {}, METHOD{UNUSED;
return dict_view(*self.dict(), true, false);
}
}
, {"values", {}, METHOD{UNUSED;
return dict_view(*self.dict(), false, true);
}
}
, {"copy", {}, METHOD{UNUSED;
return self;
}
}
, {"get", {"key", "default"}, METHOD{UNUSED;
const Value* found = self.dict()->find_value(given.required(0));
return found ? *found : given.value(1, Value());
}
}
,
});
return methods;
}

const Methods& list_methods() {
  static const Methods methods = table({
      {"copy", {}, METHOD { UNUSED; return self;
}
}
, {"count", {"value"}, METHOD{UNUSED;
const auto& items = self.sequence() -> items;
return std::count_if(items.begin(), items.end(),
                     [&](const Value& held) { return equal(held, given.required(0)); });
}
}
, {"index", {"value"}, METHOD{UNUSED;
const auto& items = self.sequence() -> items;
auto found =
    std::find_if(items.begin(), items.end(), [&](const Value& held) { return equal(held, given.required(0)); });
if (found == items.end()) throw TemplateError("the value is not in the list");
return found - items.begin();
}
}
,
});
return methods;
}

#undef METHOD
#undef UNUSED

}  // namespace

const Builtin* find_method(const Value& subject, const std::string& name) {
  const Methods* methods = nullptr;
  if (subject.text()) methods = &text_methods();
  if (subject.dict()) methods = &dict_methods();
  if (subject.sequence() && subject.sequence()->kind <= Sequence::range) methods = &list_methods();
  if (!methods) return nullptr;
  auto found = methods->find(name);
  return found == methods->end() ? nullptr : &found->second;
}

}  // namespace tessera::chat
