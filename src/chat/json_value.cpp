// JSON to values and back. Own builder over nlohmann's events: its ordered objects search linearly for each
// key.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "chat/characters.h"
#include "chat/value.h"

namespace tessera::chat {

namespace {

class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  Value result;
  std::string failure;

  bool null() override { return add(Value()); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(int64_t value) override { return add(value); }
  bool number_unsigned(uint64_t value) override {
    return value <= static_cast<uint64_t>(INT64_MAX) ? add(static_cast<int64_t>(value))
                                                     : add(static_cast<double>(value));
  }
  bool number_float(double value, const std::string&) override { return add(value); }
  bool string(std::string& value) override { return add(std::move(value)); }
  bool binary(nlohmann::json::binary_t&) override { return false; }
  bool start_object(size_t) override { return open(false); }
  bool start_array(size_t) override { return open(true); }
  bool key(std::string& name) override {
    open_.back().key = std::move(name);
    return true;
  }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
    std::string text = error.what();
    failure = text.substr(text.find("] ") + 2);
    return false;
  }

 private:
  struct Open {
    bool is_list;
    std::vector<Value> items = {};
    Dict dict = {};
    std::string key = {};
  };
  bool open(bool is_list) {
    open_.push_back({is_list});
    if (open_.size() <= static_cast<size_t>(kMaxValueDepth)) return true;
    failure = fmt::format("it is nested deeper than {} levels", kMaxValueDepth);
    return false;
  }
  bool close() {
    Open done = std::move(open_.back());
    open_.pop_back();
    return done.is_list ? add(std::move(done.items)) : add(std::move(done.dict));
  }
  bool add(Value value) {
    if (open_.empty())
      result = std::move(value);
    else if (open_.back().is_list)
      open_.back().items.push_back(std::move(value));
    else
      open_.back().dict.set(std::move(open_.back().key), std::move(value));
    return true;
  }
  std::vector<Open> open_;
};

// Writes a value; `depth` counts the levels above it.
class Writer {
 public:
  explicit Writer(const JsonStyle& style) : style_(style) {}
  std::string out;

  void write(const Value& value, int64_t depth) {
    if (value.is_none())
      out += "null";
    else if (value.is_bool())
      out += value.integer() ? "true" : "false";
    else if (value.is_float())
      out += number(value.number());
    else if (value.is_integer())
      out += value.repr();
    else if (value.text())
      write_text(*value.text());
    else if (value.dict())
      write_dict(*value.dict(), depth);
    else if (value.sequence() && value.sequence()->kind <= Sequence::tuple)
      write_list(*value.sequence(), depth);
    else
      throw TemplateError(fmt::format("a {} cannot be written as JSON", value.type_name()));
  }

 private:
  static std::string number(double value) {
    if (std::isnan(value)) return "NaN";
    return std::isinf(value) ? (value < 0 ? "-Infinity" : "Infinity") : float_text(value);
  }

  void write_text(const std::string& text) {
    out += '"';
    for (char32_t c : decode(text)) write_character(c);
    out += '"';
  }

  void write_character(char32_t c) {
    constexpr std::u32string_view kNamed = U"\"\\\n\r\t\b\f";
    auto code = static_cast<uint32_t>(c);
    if (size_t at = kNamed.find(c); at != kNamed.npos)
      (out += '\\') += "\"\\nrtbf"[at];
    else if (code >= 0x10000 && style_.ensure_ascii)
      out += fmt::format("\\u{:04x}\\u{:04x}", 0xD7C0 + (code >> 10), 0xDC00 + (code & 0x3FF));
    else if (code < 0x20 || (code > 0x7E && style_.ensure_ascii))
      out += fmt::format("\\u{:04x}", code);
    else
      out += encode({&c, 1});
  }

  void write_dict(const Dict& dict, int64_t depth) {
    auto items = dict.items();
    if (style_.sort_keys)
      std::stable_sort(items.begin(), items.end(),
                       [](const auto& a, const auto& b) { return compare(a.first, b.first) < 0; });
    open('{');
    for (size_t i = 0; i < items.size(); ++i) {
      separate(i, depth);
      write_text(key_text(items[i].first));
      out += style_.key_separator;
      write(items[i].second, depth + 1);
    }
    close('}', items.empty(), depth);
  }

  static std::string key_text(const Value& key) {
    if (key.text()) return *key.text();
    if (key.is_none()) return "null";
    if (key.is_bool()) return key.integer() ? "true" : "false";
    if (key.is_number()) return key.repr();
    throw TemplateError(fmt::format("a {} cannot be a key in JSON", key.type_name()));
  }

  void write_list(const Sequence& list, int64_t depth) {
    open('[');
    for (size_t i = 0; i < list.items.size(); ++i) {
      separate(i, depth);
      write(list.items[i], depth + 1);
    }
    close(']', list.items.empty(), depth);
  }

  void open(char bracket) { out += bracket; }
  void separate(size_t index, int64_t depth) {
    if (index > 0) out += style_.item_separator;
    new_line(depth + 1);
  }
  void close(char bracket, bool empty, int64_t depth) {
    if (!empty) new_line(depth);
    out += bracket;
  }
  void new_line(int64_t depth) {
    if (style_.indent)
      (out += '\n').append(static_cast<size_t>(std::max<int64_t>(0, *style_.indent * depth)), ' ');
  }

  const JsonStyle& style_;
};

}  // namespace

Result<Value> parse_json(std::string_view text) {
  Builder builder;
  if (nlohmann::json::sax_parse(text.begin(), text.end(), &builder)) return std::move(builder.result);
  return invalid("no valid JSON: {}", builder.failure);
}

std::string to_json(const Value& value, const JsonStyle& style) {
  Writer writer(style);
  writer.write(value, 0);
  return std::move(writer.out);
}

}  // namespace tessera::chat
