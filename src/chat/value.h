// The values of chat templates: what Python calls None, bool, int, float, str, list, tuple, dict, and what
// Jinja adds, with Python's truth, equality, order and text of them. Values are immutable but for namespaces,
// as in the sandbox that Hugging Face renders templates in.
//
// They also stand for JSON: text that clients send is read into them with the order of its keys kept.
//
// Errors inside a template are TemplateError exceptions; none leaves this part. Nesting is bounded, so that
// what walks a value may recurse. Threads: a Value may be read by many, but for iterators and namespaces, which
// only templates make.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "core/result.h"

namespace tessera::chat {

struct TemplateError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Value;
struct Undefined {
  std::string what;  // why it is not defined, for the message when it is used
};
struct None {};
struct Markup {  // text that |safe or |escape made; joined with other text it escapes that
  std::shared_ptr<const std::string> text;
};

constexpr uint64_t kMaxWeight = uint64_t{1} << 40;  // heavier values count as this

// How much a walk over a value with all its parts costs; set by Value.
struct Extent {
  int depth = 0;        // levels below
  uint64_t weight = 1;  // nodes and 16ths of their bytes; a part that is held twice counts twice
  void add(const Value& part);
};

// A list, and what behaves like one with restrictions.
struct Sequence {
  // view: of a dict, without positions; iterator: read once, without a length
  enum Kind { list, tuple, range, view, iterator };
  std::vector<Value> items;
  Kind kind = list;
  Extent extent = {};
  mutable bool consumed = false;
};

// Keys in the order of their first appearance.
class Dict {
 public:
  void set(Value key, Value value);
  const Value* find_value(const Value& key) const;
  const Value* find(std::string_view key) const;
  const std::vector<std::pair<Value, Value>>& items() const { return items_; }
  size_t size() const { return items_.size(); }
  Extent extent = {};

 private:
  size_t place_of(const Value& key) const;
  std::vector<std::pair<Value, Value>> items_;
  std::unordered_map<std::string, size_t> places_;  // of the keys that are text
};

struct Namespace {
  std::unordered_map<std::string, Value> fields;
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};
struct Callable {
  std::string name;
  std::function<Value(Arguments&)> call;
  std::function<Value(const std::string&)> field = {};  // of the loop; undefined where it has none
};

constexpr int kMaxValueDepth = 200;

class Value {
 public:
  using Text = std::shared_ptr<const std::string>;
  using SequencePtr = std::shared_ptr<const Sequence>;
  using DictPtr = std::shared_ptr<const Dict>;
  using NamespacePtr = std::shared_ptr<Namespace>;
  using CallablePtr = std::shared_ptr<const Callable>;

  Value() : data_(None{}) {}
  Value(bool value) : data_(value) {}
  Value(int64_t value) : data_(value) {}
  Value(int value) : data_(static_cast<int64_t>(value)) {}
  Value(double value) : data_(value) {}
  Value(std::string value) : data_(std::make_shared<const std::string>(std::move(value))) {}
  Value(std::string_view value) : Value(std::string(value)) {}
  Value(const char* value) : Value(std::string(value)) {}
  Value(Sequence value);  // these two throw beyond kMaxValueDepth
  Value(Dict value);
  Value(std::vector<Value> value) : Value(Sequence{.items = std::move(value)}) {}
  Value(Callable value) : data_(std::make_shared<const Callable>(std::move(value))) {}
  Value(NamespacePtr value) : data_(std::move(value)) {}
  static Value undefined(std::string what) { return Value(Undefined{std::move(what)}); }
  static Value markup(std::string text) {
    return Value(Markup{std::make_shared<const std::string>(std::move(text))});
  }

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_text() const { return std::holds_alternative<Text>(data_) || is_markup(); }
  bool is_markup() const { return std::holds_alternative<Markup>(data_); }
  bool is_integer() const { return std::holds_alternative<int64_t>(data_); }
  bool is_float() const { return std::holds_alternative<double>(data_); }
  bool is_number() const { return is_bool() || is_integer() || is_float(); }

  // Null when it is of another kind.
  const std::string* text() const;
  const Sequence* sequence() const;
  const Dict* dict() const;
  Namespace* name_space() const;
  const Callable* callable() const;

  int64_t integer() const;  // REQUIRES: bool or integer
  double number() const;    // REQUIRES: is_number()
  const std::string& undefined_reason() const { return std::get<Undefined>(data_).what; }

  bool truth() const;
  std::string str() const;   // as Python's str(); "" when undefined
  std::string repr() const;  // as Python's repr()
  const char* type_name() const;
  Extent extent() const;

  // The elements that a loop runs over; an undefined value has none. Throws for what cannot be iterated.
  std::vector<Value> elements() const;
  bool iterable() const;

 private:
  explicit Value(Undefined value) : data_(std::move(value)) {}
  explicit Value(Markup value) : data_(std::move(value)) {}
  std::variant<None, Undefined, bool, int64_t, double, Text, Markup, SequencePtr, DictPtr, NamespacePtr,
               CallablePtr>
      data_;
};

bool equal(const Value& a, const Value& b);
// Negative, 0, positive. Throws when Python has no order for the two.
int compare(const Value& a, const Value& b);
// `item in container`.
bool contains(const Value& container, const Value& item);

// As Python's repr(float): the shortest digits that read back equal.
std::string float_text(double value);

// As Python's json.dumps(value, ensure_ascii=False) with these settings.
struct JsonStyle {
  std::optional<int64_t> indent;
  std::string item_separator = ", ", key_separator = ": ";
  bool ensure_ascii = false, sort_keys = false;
};
std::string to_json(const Value& value, const JsonStyle& style = {});

// JSON text with the order of its keys kept. Errors: invalid_argument, with the place.
Result<Value> parse_json(std::string_view text);

}  // namespace tessera::chat
