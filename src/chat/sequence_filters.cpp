// Filters of sequences and dicts.
#include <fmt/format.h>

#include <algorithm>

#include "chat/characters.h"
#include "chat/filters.h"
#include "chat/format.h"

namespace tessera::chat {

namespace {

Value iterator(std::vector<Value> items) {
  return Value(Sequence{.items = std::move(items), .kind = Sequence::iterator});
}

Value tuple(std::vector<Value> items) {
  return Value(Sequence{.items = std::move(items), .kind = Sequence::tuple});
}

// What a filter looks at in an element: itself, or the attribute that the caller names; texts without case if
// asked.
Value key_of(Env& env, const Value& element, const Value* path, bool ignore_case) {
  Value key = path && !path->is_none() ? attribute_path(env, element, *path) : element;
  return ignore_case && key.text() ? Value(lower(*key.text())) : key;
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

}  // namespace

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

Value dict_items(const Value& value) {
  if (value.is_undefined()) return iterator({});
  if (!value.dict()) throw TemplateError(fmt::format("items needs a dict, not a {}", value.type_name()));
  std::vector<Value> out;
  for (const auto& [key, held] : value.dict()->items()) out.push_back(tuple({key, held}));
  return iterator(std::move(out));
}

}  // namespace tessera::chat
