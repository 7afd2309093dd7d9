// Filters of templates, with Jinja's results; tojson is Hugging Face's.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <unordered_map>

#include "chat/builtins.h"
#include "chat/characters.h"
#include "chat/format.h"

namespace tessera::chat {

namespace {

Value iterator(std::vector<Value> items) {
  return Value(Sequence{.items = std::move(items), .kind = Sequence::iterator});
}
Value tuple(std::vector<Value> items) {
  return Value(Sequence{.items = std::move(items), .kind = Sequence::tuple});
}

std::string text_of(Env& env, const Value& value) {
  env.budget.text(value.extent().weight * 16);
  return value.str();
}

bool is_given(const Given& given, size_t i) {
  return given.find(i) && !given.find(i)->is_none();
}

// What a filter looks at in an element: itself, or the attribute that the caller names; texts without case if
// asked.
Value key_of(Env& env, const Value& element, const Value* path, bool ignore_case) {
  Value key = path && !path->is_none() ? attribute_path(env, element, *path) : element;
  return ignore_case && key.text() ? Value(lower(*key.text())) : key;
}

Value length_of(const Value& value) {
  if (value.is_undefined()) return 0;
  if (value.text()) return num_characters(*value.text());
  if (value.dict()) return std::ssize(value.dict()->items());
  if (value.sequence() && value.sequence()->kind != Sequence::iterator)
    return std::ssize(value.sequence()->items);
  throw TemplateError(fmt::format("a {} has no length", value.type_name()));
}

Value end_of(const Value& value, bool last) {
  bool backwards = !value.sequence() || value.sequence()->kind != Sequence::iterator;
  if (last && !backwards) throw TemplateError("an iterator has no last element; use |list");
  auto items = value.elements();
  if (items.empty()) return Value::undefined("a sequence without elements has no first or last one");
  return last ? items.back() : items.front();
}

Value join(Env& env, const Value& value, const Given& given) {
  std::string separator = is_given(given, 0) ? text_of(env, *given.find(0)) : "", out;
  bool first = true;
  for (const Value& element : value.elements()) {
    std::string part = text_of(env, key_of(env, element, given.find(1), false));
    env.budget.text(separator.size());
    if (!std::exchange(first, false)) out += separator;
    out += part;
  }
  return out;
}

Value reversed(const Value& value) {
  if (value.text()) {
    std::u32string text = decode(*value.text());
    std::reverse(text.begin(), text.end());
    return encode(text);
  }
  auto items = value.elements();
  std::reverse(items.begin(), items.end());
  return iterator(std::move(items));
}

void sort_by(Env& env, std::vector<Value>& items, const Value* path, bool ignore_case, bool descending) {
  std::vector<std::pair<Value, Value>> keyed;
  for (Value& item : items) keyed.emplace_back(key_of(env, item, path, ignore_case), item);
  env.budget.work(items.size() * 16);
  auto before = [&](const auto& a, const auto& b) {
    env.budget.work(std::min(a.first.extent().weight, b.first.extent().weight));
    return descending ? compare(b.first, a.first) < 0 : compare(a.first, b.first) < 0;
  };
  std::stable_sort(keyed.begin(), keyed.end(), before);
  for (size_t i = 0; i < items.size(); ++i) items[i] = keyed[i].second;
}

Value sorted(Env& env, const Value& value, const Given& given) {
  auto items = value.elements();
  sort_by(env, items, given.find(2), !given.flag(1), given.flag(0));
  return Value(std::move(items));
}

Value dict_sorted(Env& env, const Value& value, const Given& given) {
  if (!value.dict()) throw TemplateError(fmt::format("dictsort needs a dict, not a {}", value.type_name()));
  std::vector<Value> items;
  for (const auto& [key, held] : value.dict()->items()) items.push_back(tuple({key, held}));
  std::string by = given.find(1) ? given.text(1) : "key";
  if (by != "key" && by != "value") throw TemplateError("dictsort sorts by 'key' or 'value'");
  Value path(by == "key" ? 0 : 1);
  sort_by(env, items, &path, !given.flag(0), given.flag(2));
  return Value(std::move(items));
}

Value extreme(Env& env, const Value& value, const Given& given, bool largest) {
  std::optional<Value> best, best_key;
  for (const Value& item : value.elements()) {
    Value key = key_of(env, item, given.find(1), !given.flag(0));
    if (best_key && (largest ? compare(key, *best_key) <= 0 : compare(key, *best_key) >= 0)) continue;
    best = item;
    best_key = key;
  }
  return best ? *best : Value::undefined("a sequence without elements has no min or max");
}

Value unique(Env& env, const Value& value, const Given& given) {
  std::vector<Value> kept, keys;
  for (const Value& item : value.elements()) {
    Value key = key_of(env, item, given.find(1), !given.flag(0));
    env.budget.work(keys.size() + key.extent().weight);
    if (key.dict() || (key.sequence() && key.sequence()->kind == Sequence::list))
      throw TemplateError(fmt::format("unique does not work on a {}", key.type_name()));
    if (std::any_of(keys.begin(), keys.end(), [&](const Value& known) { return equal(known, key); })) continue;
    keys.push_back(key);
    kept.push_back(item);
  }
  return iterator(std::move(kept));
}

Value map_elements(Env& env, const Value& value, const Given& given) {
  if (!value.truth()) return iterator({});
  const Arguments& raw = given.raw();
  std::vector<Value> out;
  if (raw.positional.empty()) {
    const Value *path = nullptr, *fallback = nullptr;
    for (const auto& [name, argument] : raw.named) {
      if (name == "attribute")
        path = &argument;
      else if (name == "default")
        fallback = &argument;
      else
        throw TemplateError(fmt::format("map() has no argument '{}'", name));
    }
    if (!path) throw TemplateError("map() needs a filter or attribute=");
    for (const Value& element : value.elements()) {
      Value found = attribute_path(env, element, *path);
      out.push_back(found.is_undefined() && fallback ? *fallback : found);
    }
    return iterator(std::move(out));
  }
  const Builtin* filter = raw.positional[0].text() ? find_filter(*raw.positional[0].text()) : nullptr;
  if (!filter)
    throw TemplateError(fmt::format("map(): the filter {} is not supported", raw.positional[0].repr()));
  Arguments rest{.positional = {raw.positional.begin() + 1, raw.positional.end()}, .named = raw.named};
  for (const Value& element : value.elements()) out.push_back(filter->call(env, element, rest));
  return iterator(std::move(out));
}

// select, reject and, when `by_attribute`, selectattr and rejectattr.
Value select(Env& env, const Value& value, const Given& given, bool by_attribute, bool wanted) {
  if (!value.truth()) return iterator({});
  const Arguments& raw = given.raw();
  size_t first = by_attribute ? 1 : 0;
  if (raw.positional.size() < first)
    throw TemplateError("selectattr() and rejectattr() need the name of an attribute");
  const Builtin* test = nullptr;
  Arguments rest{.positional = {}, .named = raw.named};
  if (raw.positional.size() > first) {
    const Value& name = raw.positional[first];
    test = name.text() ? find_test(*name.text()) : nullptr;
    if (!test) throw TemplateError(fmt::format("the test {} is not supported", name.repr()));
    rest.positional.assign(raw.positional.begin() + static_cast<ptrdiff_t>(first) + 1, raw.positional.end());
  }
  std::vector<Value> out;
  for (const Value& element : value.elements()) {
    Value looked_at = by_attribute ? attribute_path(env, element, raw.positional[0]) : element;
    bool holds = test ? test->call(env, looked_at, rest).truth() : looked_at.truth();
    if (holds == wanted) out.push_back(element);
  }
  return iterator(std::move(out));
}

Value batch(const Value& value, const Given& given) {
  int64_t size = given.integer(0, 0);
  std::vector<Value> out, row;
  auto end_row = [&] { out.emplace_back(std::exchange(row, {})); };
  for (const Value& element : value.elements()) {
    if (std::ssize(row) == size) end_row();
    row.push_back(element);
  }
  if (row.empty()) return iterator(std::move(out));
  if (is_given(given, 1) && size > 100'000) throw TemplateError("batch() is too wide");
  if (is_given(given, 1)) row.resize(std::max(row.size(), static_cast<size_t>(size)), *given.find(1));
  end_row();
  return iterator(std::move(out));
}

Value sum(Env& env, const Value& value, const Given& given) {
  bool real = false;
  double total = 0;
  int64_t whole = 0;
  auto add = [&](const Value& number) {
    if (!number.is_number())
      throw TemplateError(fmt::format("sum() needs numbers, not a {}", number.type_name()));
    real |= number.is_float();
    total += number.number();
    if (!number.is_float() && __builtin_add_overflow(whole, number.integer(), &whole))
      throw TemplateError("a number is too large");
  };
  add(given.value(1, 0));
  for (const Value& element : value.elements()) add(key_of(env, element, given.find(0), false));
  return real ? Value(total) : Value(whole);
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

std::optional<int64_t> digits_to_integer(const std::string& padded_text, int64_t base) {
  std::string text = strip_right(strip_left(padded_text));
  const char *begin = text.data(), *end = begin + text.size();
  if (begin != end && *begin == '+' && text.find('-') == text.npos) ++begin;
  int64_t number = 0;
  auto [stop, error] = std::from_chars(begin, end, number, static_cast<int>(base));
  if (error == std::errc::result_out_of_range) throw TemplateError("a number is too large");
  return error == std::errc() && stop == end ? std::optional(number) : std::nullopt;
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

Value dict_items(const Value& value) {
  if (value.is_undefined()) return iterator({});
  if (!value.dict()) throw TemplateError(fmt::format("items needs a dict, not a {}", value.type_name()));
  std::vector<Value> out;
  for (const auto& [key, held] : value.dict()->items()) out.push_back(tuple({key, held}));
  return iterator(std::move(out));
}

#define FILTER [](Env & env, const Value& it, const Given& given) -> Value
#define UNUSED (void)env, (void)it, (void)given

const std::unordered_map<std::string, Builtin>& filters() {
  static const std::unordered_map<std::string, Builtin> table = [] {
    std::unordered_map<std::string, Builtin> out;
    auto add = [&](std::initializer_list<const char*> names, std::vector<std::string> parameters,
                   decltype(Builtin::run) run) {
      for (const char* name : names) out.emplace(name, Builtin{name, parameters, run});
    };
    add(
        {"abs"}, {}, FILTER {
          UNUSED;
          return absolute(it);
        });
    add(
        {"attr"}, {"name"}, FILTER {
          UNUSED;
          return attribute(env, it, given.text(0));
        });
    add(
        {"batch"}, {"linecount", "fill_with"}, FILTER {
          UNUSED;
          return batch(it, given);
        });
    add(
        {"capitalize"}, {}, FILTER {
          UNUSED;
          return capitalize(text_of(env, it));
        });
    add(
        {"center"}, {"width"}, FILTER {
          UNUSED;
          return padded(env.budget, text_of(env, it), given.integer(0, 80), true, true);
        });
    add(
        {"default", "d"}, {"default_value", "boolean"}, FILTER {
          UNUSED;
          bool missing = it.is_undefined() || (given.flag(1) && !it.truth());
          return missing ? given.value(0, "") : it;
        });
    add(
        {"dictsort"}, {"case_sensitive", "by", "reverse"}, FILTER {
          UNUSED;
          return dict_sorted(env, it, given);
        });
    add(
        {"escape", "e"}, {}, FILTER {
          UNUSED;
          return it.is_markup() ? it : Value::markup(escaped(text_of(env, it)));
        });
    add(
        {"first"}, {}, FILTER {
          UNUSED;
          return end_of(it, false);
        });
    add(
        {"last"}, {}, FILTER {
          UNUSED;
          return end_of(it, true);
        });
    add(
        {"float"}, {"default"}, FILTER {
          UNUSED;
          auto number = to_real(it);
          return number ? Value(*number) : given.value(0, 0.0);
        });
    add(
        {"format"}, {}, FILTER {
          UNUSED;
          return format_percent(env, text_of(env, it), given.raw());
        });
    add(
        {"indent"}, {"width", "first", "blank"}, FILTER {
          UNUSED;
          return indent(env, it, given);
        });
    add(
        {"int"}, {"default", "base"}, FILTER {
          UNUSED;
          return to_integer(it, given);
        });
    add(
        {"items"}, {}, FILTER {
          UNUSED;
          return dict_items(it);
        });
    add(
        {"join"}, {"d", "attribute"}, FILTER {
          UNUSED;
          return join(env, it, given);
        });
    add(
        {"length", "count"}, {}, FILTER {
          UNUSED;
          return length_of(it);
        });
    add(
        {"list"}, {}, FILTER {
          UNUSED;
          return Value(it.elements());
        });
    add(
        {"lower"}, {}, FILTER {
          UNUSED;
          return lower(text_of(env, it));
        });
    add(
        {"upper"}, {}, FILTER {
          UNUSED;
          return upper(text_of(env, it));
        });
    add(
        {"map"}, {}, FILTER {
          UNUSED;
          return map_elements(env, it, given);
        });
    add(
        {"max"}, {"case_sensitive", "attribute"}, FILTER {
          UNUSED;
          return extreme(env, it, given, true);
        });
    add(
        {"min"}, {"case_sensitive", "attribute"}, FILTER {
          UNUSED;
          return extreme(env, it, given, false);
        });
    add(
        {"reject"}, {}, FILTER {
          UNUSED;
          return select(env, it, given, false, false);
        });
    add(
        {"rejectattr"}, {}, FILTER {
          UNUSED;
          return select(env, it, given, true, false);
        });
    add(
        {"select"}, {}, FILTER {
          UNUSED;
          return select(env, it, given, false, true);
        });
    add(
        {"selectattr"}, {}, FILTER {
          UNUSED;
          return select(env, it, given, true, true);
        });
    add(
        {"replace"}, {"old", "new", "count"}, FILTER {
          UNUSED;
          int64_t most = is_given(given, 2) ? given.integer(2, -1) : -1;
          return replace_within(env.budget, text_of(env, it), text_of(env, given.required(0)),
                                text_of(env, given.required(1)), most);
        });
    add(
        {"reverse"}, {}, FILTER {
          UNUSED;
          return reversed(it);
        });
    add(
        {"round"}, {"precision", "method"}, FILTER {
          UNUSED;
          return rounded(it, given);
        });
    add(
        {"safe"}, {}, FILTER {
          UNUSED;
          return Value::markup(text_of(env, it));
        });
    add(
        {"string"}, {}, FILTER {
          UNUSED;
          return it.is_markup() ? it : Value(text_of(env, it));
        });
    add(
        {"sort"}, {"reverse", "case_sensitive", "attribute"}, FILTER {
          UNUSED;
          return sorted(env, it, given);
        });
    add(
        {"sum"}, {"attribute", "start"}, FILTER {
          UNUSED;
          return sum(env, it, given);
        });
    add(
        {"title"}, {}, FILTER {
          UNUSED;
          return title_words(text_of(env, it));
        });
    add(
        {"tojson"}, {"ensure_ascii", "indent", "separators", "sort_keys"}, FILTER {
          UNUSED;
          return json_text(env, it, given);
        });
    add(
        {"trim"}, {"chars"}, FILTER {
          UNUSED;
          std::optional<std::string_view> what;
          if (is_given(given, 0)) what = given.text(0);
          return strip_right(strip_left(text_of(env, it), what), what);
        });
    add(
        {"truncate"}, {"length", "killwords", "end", "leeway"}, FILTER {
          UNUSED;
          return truncate(env, it, given);
        });
    add(
        {"unique"}, {"case_sensitive", "attribute"}, FILTER {
          UNUSED;
          return unique(env, it, given);
        });
    return out;
  }();
  return table;
}

#undef FILTER
#undef UNUSED

}  // namespace

const Builtin* find_filter(const std::string& name) {
  auto found = filters().find(name);
  return found == filters().end() ? nullptr : &found->second;
}

}  // namespace tessera::chat
