#include "chat/operators.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "chat/characters.h"
#include "chat/format.h"

namespace tessera::chat {

namespace {

[[noreturn]] void refuse(const std::string& op, const Value& a, const Value& b) {
  throw TemplateError(fmt::format("'{}' does not work on a {} and a {}", op, a.type_name(), b.type_name()));
}
[[noreturn]] void too_large() {
  throw TemplateError("a number is too large");
}
void check_divisor(const Value& by) {
  if (by.number() == 0) throw TemplateError("division by zero");
}

int64_t floor_div(int64_t a, int64_t b) {
  if (b == -1) return a == INT64_MIN ? (too_large(), 0) : -a;
  return a / b - (a % b != 0 && (a < 0) != (b < 0));
}
double floor_mod(double a, double b) {
  double rest = std::fmod(a, b);
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

Value power(const Value& a, const Value& b) {
  if (a.is_float() || b.is_float() || b.integer() < 0) {
    if (a.number() == 0 && b.number() < 0) throw TemplateError("division by zero");
    if (a.number() < 0 && std::floor(b.number()) != b.number())
      throw TemplateError("'**' of a negative number and a fraction is not supported");
    double out = std::pow(a.number(), b.number());
    if (std::isinf(out) && !std::isinf(a.number())) too_large();
    return out;
  }
  int64_t out = 1, base = a.integer();
  if (base == 0 || base == 1) return b.integer() == 0 ? 1 : base;
  if (base == -1) return b.integer() % 2 ? -1 : 1;
  for (int64_t i = 0; i < b.integer(); ++i)
    if (__builtin_mul_overflow(out, base, &out)) too_large();
  return out;
}

Value integers(const std::string& op, const Value& x, const Value& y) {
  int64_t a = x.integer(), b = y.integer(), out = 0;
  bool overflows = false;
  if (op == "+")
    overflows = __builtin_add_overflow(a, b, &out);
  else if (op == "-")
    overflows = __builtin_sub_overflow(a, b, &out);
  else if (op == "*")
    overflows = __builtin_mul_overflow(a, b, &out);
  else if (op == "//")
    check_divisor(y), out = floor_div(a, b);
  else
    check_divisor(y), out = b == -1 ? 0 : a - floor_div(a, b) * b;
  if (overflows) too_large();
  return out;
}

Value numbers(const std::string& op, const Value& a, const Value& b) {
  if (op == "**") return power(a, b);
  if (op == "/") return check_divisor(b), a.number() / b.number();
  if (!a.is_float() && !b.is_float()) return integers(op, a, b);
  double x = a.number(), y = b.number();
  if (op == "+") return x + y;
  if (op == "-") return x - y;
  if (op == "*") return x * y;
  check_divisor(b);
  if (op == "%") return floor_mod(x, y);
  return (x - floor_mod(x, y)) / y;
}

Value joined_texts(Env& env, const Value& a, const Value& b) {
  env.budget.text(a.text()->size() + b.text()->size());
  if (!a.is_markup() && !b.is_markup()) return *a.text() + *b.text();
  auto part = [](const Value& text) { return text.is_markup() ? *text.text() : escaped(*text.text()); };
  return Value::markup(part(a) + part(b));
}

// Whatever they are: as texts, and without regard to markup.
Value joined_plainly(Env& env, const Value& a, const Value& b) {
  env.budget.text((a.extent().weight + b.extent().weight) * 16);
  return a.str() + b.str();
}

Value joined_lists(Env& env, const Sequence& a, const Sequence& b) {
  env.budget.work(a.items.size() + b.items.size());
  Sequence out{.items = a.items, .kind = a.kind};
  out.items.insert(out.items.end(), b.items.begin(), b.items.end());
  return out;
}

Value repeated_list(Env& env, const Sequence& list, int64_t times) {
  times = list.items.empty() ? 0 : std::clamp<int64_t>(times, 0, INT32_MAX);
  env.budget.work(static_cast<uint64_t>(times) * list.items.size());
  Sequence out{.kind = list.kind};
  for (int64_t i = 0; i < times; ++i) out.items.insert(out.items.end(), list.items.begin(), list.items.end());
  return out;
}

const Sequence* as_list(const Value& value) {
  const Sequence* items = value.sequence();
  return items && items->kind <= Sequence::tuple ? items : nullptr;
}
bool is_count(const Value& value) {
  return value.is_integer() || value.is_bool();
}

Value times(Env& env, const Value& a, const Value& b) {
  if (is_count(a) && (b.text() || as_list(b))) return times(env, b, a);
  if (a.text() && is_count(b)) return repeated(env.budget, *a.text(), b.integer());
  if (as_list(a) && is_count(b)) return repeated_list(env, *as_list(a), b.integer());
  refuse("*", a, b);
}

}  // namespace

Value binary(Env& env, const std::string& op, const Value& a, const Value& b) {
  if (op == "~") return joined_plainly(env, a, b);
  if (a.is_undefined()) throw_undefined(a);
  if (b.is_undefined() && op != "%") throw_undefined(b);
  if (op == "%" && a.text()) return format_percent(env, *a.text(), b);
  if (b.is_undefined()) throw_undefined(b);
  if (a.is_number() && b.is_number()) return numbers(op, a, b);
  if (op == "*") return times(env, a, b);
  if (op == "+" && a.text() && b.text()) return joined_texts(env, a, b);
  if (op == "+" && as_list(a) && as_list(b) && as_list(a)->kind == as_list(b)->kind)
    return joined_lists(env, *as_list(a), *as_list(b));
  refuse(op, a, b);
}

Value negative(const Value& value) {
  if (value.is_undefined()) throw_undefined(value);
  if (!value.is_number()) throw TemplateError(fmt::format("'-' does not work on a {}", value.type_name()));
  if (value.is_float()) return -value.number();
  if (value.integer() == INT64_MIN) too_large();
  return -value.integer();
}

bool comparison(Env& env, const std::string& op, const Value& a, const Value& b) {
  bool is_member = op == "in" || op == "not in";
  env.budget.work(is_member ? b.extent().weight : std::min(a.extent().weight, b.extent().weight));
  if (is_member) return contains(b, a) == (op == "in");
  if (op == "==" || op == "!=") return equal(a, b) == (op == "==");
  if (a.is_undefined()) throw_undefined(a);
  if (b.is_undefined()) throw_undefined(b);
  bool nan = (a.is_float() && std::isnan(a.number())) || (b.is_float() && std::isnan(b.number()));
  int order = compare(a, b);
  if (nan) return false;
  if (op == "<") return order < 0;
  if (op == "<=") return order <= 0;
  return op == ">" ? order > 0 : order >= 0;
}

Value slice(Env& env, const Value& value, const Value& start, const Value& stop, const Value& step) {
  if (value.is_undefined()) throw_undefined(value);
  const Sequence* items = value.sequence();
  bool positional = items && items->kind <= Sequence::range;
  if (!value.text() && !positional)
    throw TemplateError(fmt::format("a {} cannot be sliced", value.type_name()));
  std::u32string characters = value.text() ? decode(*value.text()) : std::u32string();
  int64_t size = value.text() ? std::ssize(characters) : std::ssize(items->items);
  env.budget.work(static_cast<uint64_t>(size) / 16 + 1);
  auto bound = [&](const Value& given, int64_t fallback) -> int64_t {
    if (given.is_none()) return fallback;
    if (given.is_undefined()) throw_undefined(given);
    if (!is_count(given))
      throw TemplateError(fmt::format("a slice needs integers, not a {}", given.type_name()));
    return given.integer();
  };
  int64_t by = std::clamp<int64_t>(bound(step, 1), -INT32_MAX, INT32_MAX);
  if (by == 0) throw TemplateError("a slice needs a step that is not 0");
  int64_t lowest = by > 0 ? 0 : -1, highest = by > 0 ? size : size - 1;
  auto place = [&](const Value& given, int64_t fallback) {
    int64_t at = bound(given, fallback);
    return given.is_none() ? at : std::clamp(at < 0 ? at + size : at, lowest, highest);
  };
  int64_t first = place(start, by > 0 ? 0 : size - 1), last = place(stop, by > 0 ? size : -1);
  std::u32string text;
  Sequence out{.kind = items ? items->kind : Sequence::list};
  for (int64_t i = first; by > 0 ? i < last : i > last; i += by) {
    if (items)
      out.items.push_back(items->items[static_cast<size_t>(i)]);
    else
      text += characters[static_cast<size_t>(i)];
  }
  return items ? Value(std::move(out)) : Value(encode(text));
}

}  // namespace tessera::chat
