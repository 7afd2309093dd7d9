#include "chat/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "chat/characters.h"

namespace tessera::chat {

namespace {

std::string quoted(const std::string& text) {
  bool has_single = text.find('\'') != std::string::npos, has_double = text.find('"') != std::string::npos;
  char quote = has_single && !has_double ? '"' : '\'';
  std::string out(1, quote);
  for (char32_t c : decode(text)) {
    if (c == static_cast<char32_t>(quote) || c == U'\\')
      (out += '\\') += static_cast<char>(c);
    else if (c == U'\n')
      out += "\\n";
    else if (c == U'\r')
      out += "\\r";
    else if (c == U'\t')
      out += "\\t";
    else if (is_printable(c))
      out += encode({&c, 1});
    else if (c < 0x100)
      out += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
    else if (c < 0x10000)
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    else
      out += fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
  }
  return out + quote;
}

std::string joined(const Sequence& sequence) {
  std::string out;
  for (const Value& item : sequence.items) out += (out.empty() ? "" : ", ") + item.repr();
  return out;
}

std::string sequence_text(const Sequence& sequence) {
  if (sequence.kind == Sequence::list) return "[" + joined(sequence) + "]";
  if (sequence.kind != Sequence::tuple)
    throw TemplateError("an iterator, range or view of a dict has no text; use |list");
  return "(" + joined(sequence) + (sequence.items.size() == 1 ? ",)" : ")");
}

std::string dict_text(const Dict& dict) {
  std::string out;
  for (const auto& [key, value] : dict.items())
    out += (out.empty() ? "" : ", ") + key.repr() + ": " + value.repr();
  return "{" + out + "}";
}

bool is_positional(const Sequence& sequence) {
  return sequence.kind == Sequence::list || sequence.kind == Sequence::tuple;
}

bool equal_dicts(const Dict& a, const Dict& b) {
  auto same = [&](const auto& item) {
    const Value* other = b.find_value(item.first);
    return other && equal(item.second, *other);
  };
  return a.items().size() == b.items().size() && std::all_of(a.items().begin(), a.items().end(), same);
}

template <class T>
int order(const T& a, const T& b) {
  return a < b ? -1 : b < a ? 1 : 0;
}

}  // namespace

size_t Dict::place_of(const Value& key) const {
  if (const std::string* name = key.text()) {
    auto found = places_.find(*name);
    return found == places_.end() ? items_.size() : found->second;
  }
  size_t place = 0;
  while (place < items_.size() && !equal(items_[place].first, key)) ++place;
  return place;
}

void Dict::set(Value key, Value value) {
  size_t place = place_of(key);
  if (place < items_.size()) {
    items_[place].second = std::move(value);
    return;
  }
  if (key.text()) places_.emplace(*key.text(), items_.size());
  items_.emplace_back(std::move(key), std::move(value));
}

const Value* Dict::find_value(const Value& key) const {
  size_t place = place_of(key);
  return place < items_.size() ? &items_[place].second : nullptr;
}

const Value* Dict::find(std::string_view key) const {
  auto found = places_.find(std::string(key));
  return found == places_.end() ? nullptr : &items_[found->second].second;
}

void Extent::add(const Value& part) {
  Extent below = part.extent();
  depth = std::max(depth, below.depth + 1);
  if (depth > kMaxValueDepth)
    throw TemplateError(fmt::format("a value is nested deeper than {} levels", kMaxValueDepth));
  weight = std::min(weight + below.weight, kMaxWeight);
}

Value::Value(Sequence value) {
  for (const Value& item : value.items) value.extent.add(item);
  data_ = std::make_shared<const Sequence>(std::move(value));
}

Value::Value(Dict value) {
  for (const auto& [key, item] : value.items()) {
    value.extent.add(key);
    value.extent.add(item);
  }
  data_ = std::make_shared<const Dict>(std::move(value));
}

Extent Value::extent() const {
  if (const Sequence* items = sequence()) return items->extent;
  if (dict()) return dict()->extent;
  return {.weight = 1 + (text() ? text()->size() / 16 : 0)};
}

const std::string* Value::text() const {
  if (auto* held = std::get_if<Text>(&data_)) return held->get();
  auto* held = std::get_if<Markup>(&data_);
  return held ? held->text.get() : nullptr;
}
const Sequence* Value::sequence() const {
  auto* held = std::get_if<SequencePtr>(&data_);
  return held ? held->get() : nullptr;
}
const Dict* Value::dict() const {
  auto* held = std::get_if<DictPtr>(&data_);
  return held ? held->get() : nullptr;
}
Namespace* Value::name_space() const {
  auto* held = std::get_if<NamespacePtr>(&data_);
  return held ? held->get() : nullptr;
}
const Callable* Value::callable() const {
  auto* held = std::get_if<CallablePtr>(&data_);
  return held ? held->get() : nullptr;
}

int64_t Value::integer() const {
  return is_bool() ? static_cast<int64_t>(std::get<bool>(data_)) : std::get<int64_t>(data_);
}
double Value::number() const {
  return is_float() ? std::get<double>(data_) : static_cast<double>(integer());
}

bool Value::truth() const {
  if (is_none() || is_undefined()) return false;
  if (is_number()) return number() != 0;
  if (text()) return !text()->empty();
  if (dict()) return !dict()->items().empty();
  if (sequence()) return sequence()->kind == Sequence::iterator || !sequence()->items.empty();
  return true;
}

std::string Value::str() const {
  if (is_undefined()) return "";
  return text() ? *text() : repr();
}

std::string Value::repr() const {
  if (is_none()) return "None";
  if (is_undefined()) return "Undefined";
  if (is_bool()) return integer() ? "True" : "False";
  if (is_integer()) return std::to_string(integer());
  if (is_float()) return float_text(number());
  if (text()) return is_markup() ? "Markup(" + quoted(*text()) + ")" : quoted(*text());
  if (sequence()) return sequence_text(*sequence());
  if (dict()) return dict_text(*dict());
  throw TemplateError(fmt::format("a {} has no text", type_name()));
}

const char* Value::type_name() const {
  if (is_none()) return "None";
  if (is_undefined()) return "undefined value";
  if (is_bool()) return "bool";
  if (is_integer()) return "int";
  if (is_float()) return "float";
  if (text()) return "str";
  if (dict()) return "dict";
  if (name_space()) return "namespace";
  if (callable()) return "function";
  constexpr const char* kNames[] = {"list", "tuple", "range", "view of a dict", "iterator"};
  return kNames[sequence()->kind];
}

bool Value::iterable() const {
  return is_undefined() || text() || sequence() || dict();
}

std::vector<Value> Value::elements() const {
  if (is_undefined()) return {};
  if (const Sequence* items = sequence()) {
    bool again = items->kind == Sequence::iterator && std::exchange(items->consumed, true);
    return again ? std::vector<Value>() : items->items;
  }
  std::vector<Value> out;
  if (text()) {
    for (std::string& c : split_characters(*text())) out.emplace_back(std::move(c));
  } else if (dict()) {
    for (const auto& [key, value] : dict()->items()) out.push_back(key);
  } else {
    throw TemplateError(fmt::format("a {} cannot be iterated", type_name()));
  }
  return out;
}

bool equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number())
    return a.is_float() || b.is_float() ? a.number() == b.number() : a.integer() == b.integer();
  if (a.text() && b.text()) return *a.text() == *b.text();
  if (a.dict() && b.dict()) return equal_dicts(*a.dict(), *b.dict());
  if (a.sequence() && b.sequence()) {
    const Sequence &x = *a.sequence(), &y = *b.sequence();
    return &x == &y || (x.kind == y.kind && (is_positional(x) || x.kind == Sequence::range) &&
                        std::equal(x.items.begin(), x.items.end(), y.items.begin(), y.items.end(), equal));
  }
  if (a.name_space() || a.callable()) return a.name_space() == b.name_space() && a.callable() == b.callable();
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

int compare(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number())
    return a.is_float() || b.is_float() ? order(a.number(), b.number()) : order(a.integer(), b.integer());
  if (a.text() && b.text()) return order(*a.text(), *b.text());
  const Sequence *x = a.sequence(), *y = b.sequence();
  if (x && y && x->kind == y->kind && is_positional(*x)) {
    for (size_t i = 0; i < std::min(x->items.size(), y->items.size()); ++i)
      if (!equal(x->items[i], y->items[i])) return compare(x->items[i], y->items[i]);
    return order(x->items.size(), y->items.size());
  }
  throw TemplateError(fmt::format("a {} and a {} have no order", a.type_name(), b.type_name()));
}

bool contains(const Value& container, const Value& item) {
  if (const std::string* text = container.text()) {
    if (!item.text()) throw TemplateError(fmt::format("a {} cannot be in a str", item.type_name()));
    return text->find(*item.text()) != std::string::npos;
  }
  if (const Dict* dict = container.dict()) {
    if (item.dict() || (item.sequence() && item.sequence()->kind == Sequence::list))
      throw TemplateError(fmt::format("a {} cannot be a key", item.type_name()));
    return dict->find_value(item) != nullptr;
  }
  if (container.sequence() && container.sequence()->kind != Sequence::iterator) {
    const auto& items = container.sequence()->items;
    return std::any_of(items.begin(), items.end(), [&](const Value& held) { return equal(held, item); });
  }
  auto items = container.elements();
  return std::any_of(items.begin(), items.end(), [&](const Value& held) { return equal(held, item); });
}

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  double size = std::fabs(value);
  bool scientific = size != 0 && (size < 1e-4 || size >= 1e16);
  char buffer[400];
  auto end = std::to_chars(buffer, buffer + sizeof buffer, value,
                           scientific ? std::chars_format::scientific : std::chars_format::fixed);
  std::string out(buffer, end.ptr);
  return scientific || out.find('.') != std::string::npos ? out : out + ".0";
}

}  // namespace tessera::chat
