// Tests of templates: what stands after `is`.
#include <fmt/format.h>

#include <cmath>
#include <unordered_map>

#include "chat/builtins.h"
#include "chat/characters.h"

namespace tessera::chat {

namespace {

Value divisible(const Value& value, const Value& by) {
  if (!value.is_number() || !by.is_number()) throw TemplateError("divisibleby needs numbers");
  if (by.number() == 0) throw TemplateError("division by zero");
  if (value.is_float() || by.is_float()) return std::fmod(value.number(), by.number()) == 0;
  return by.integer() == -1 || value.integer() % by.integer() == 0;
}

bool is_whole(const Value& value) {
  return value.is_integer();
}

Value parity(const Value& value, bool odd) {
  if (!value.is_number())
    throw TemplateError(fmt::format("odd and even need a number, not a {}", value.type_name()));
  double rest =
      value.is_float() ? std::fmod(value.number(), 2) : std::abs(static_cast<double>(value.integer() % 2));
  return odd ? std::fabs(rest) == 1 : rest == 0;
}

bool same(const Value& a, const Value& b) {
  if (a.is_bool() != b.is_bool() || a.is_float() != b.is_float()) return false;
  if (a.sequence() || a.dict()) return a.sequence() == b.sequence() && a.dict() == b.dict();
  return equal(a, b);
}

bool all_case(const Value& value, bool (*is)(char32_t), bool (*is_other)(char32_t)) {
  std::u32string text = decode(value.str());
  bool some = false;
  for (char32_t c : text) {
    if (is_other(c)) return false;
    some |= is(c);
  }
  return some;
}

#define TEST [](Env & env, const Value& it, const Given& given) -> Value
#define UNUSED (void)env, (void)it, (void)given

const std::unordered_map<std::string, Builtin>& tests() {
  static const std::unordered_map<std::string, Builtin> table = [] {
    std::unordered_map<std::string, Builtin> out;
    auto add = [&](std::initializer_list<const char*> names, std::vector<std::string> parameters,
                   decltype(Builtin::run) run) {
      for (const char* name : names) out.emplace(name, Builtin{name, parameters, run});
    };
    add(
        {"defined"}, {}, TEST {
          UNUSED;
          return !it.is_undefined();
        });
    add(
        {"undefined"}, {}, TEST {
          UNUSED;
          return it.is_undefined();
        });
    add(
        {"none"}, {}, TEST {
          UNUSED;
          return it.is_none();
        });
    add(
        {"boolean"}, {}, TEST {
          UNUSED;
          return it.is_bool();
        });
    add(
        {"true"}, {}, TEST {
          UNUSED;
          return it.is_bool() && it.truth();
        });
    add(
        {"false"}, {}, TEST {
          UNUSED;
          return it.is_bool() && !it.truth();
        });
    add(
        {"integer"}, {}, TEST {
          UNUSED;
          return is_whole(it);
        });
    add(
        {"float"}, {}, TEST {
          UNUSED;
          return it.is_float();
        });
    add(
        {"number"}, {}, TEST {
          UNUSED;
          return it.is_number();
        });
    add(
        {"string"}, {}, TEST {
          UNUSED;
          return it.is_text();
        });
    add(
        {"mapping"}, {}, TEST {
          UNUSED;
          return it.dict() != nullptr;
        });
    add(
        {"iterable"}, {}, TEST {
          UNUSED;
          return it.iterable();
        });
    add(
        {"sequence"}, {}, TEST {
          UNUSED;
          // An undefined value has a length of 0 and an access that fails, which is enough for Jinja.
          return it.is_undefined() || it.is_text() || it.dict() ||
                 (it.sequence() && it.sequence()->kind <= Sequence::range);
        });
    add(
        {"callable"}, {}, TEST {
          UNUSED;
          return it.callable() != nullptr || it.is_undefined();
        });
    add(
        {"odd"}, {}, TEST {
          UNUSED;
          return parity(it, true);
        });
    add(
        {"even"}, {}, TEST {
          UNUSED;
          return parity(it, false);
        });
    add(
        {"lower"}, {}, TEST {
          UNUSED;
          return all_case(it, is_lower, is_upper);
        });
    add(
        {"upper"}, {}, TEST {
          UNUSED;
          return all_case(it, is_upper, is_lower);
        });
    add(
        {"divisibleby"}, {"num"}, TEST {
          UNUSED;
          return divisible(it, given.required(0));
        });
    add(
        {"sameas"}, {"other"}, TEST {
          UNUSED;
          return same(it, given.required(0));
        });
    add(
        {"in"}, {"seq"}, TEST {
          UNUSED;
          return contains(given.required(0), it);
        });
    add(
        {"eq", "equalto", "=="}, {"b"}, TEST {
          UNUSED;
          return equal(it, given.required(0));
        });
    add(
        {"ne", "!="}, {"b"}, TEST {
          UNUSED;
          return !equal(it, given.required(0));
        });
    add(
        {"lt", "lessthan", "<"}, {"b"}, TEST {
          UNUSED;
          return compare(it, given.required(0)) < 0;
        });
    add(
        {"le", "<="}, {"b"}, TEST {
          UNUSED;
          return compare(it, given.required(0)) <= 0;
        });
    add(
        {"gt", "greaterthan", ">"}, {"b"}, TEST {
          UNUSED;
          return compare(it, given.required(0)) > 0;
        });
    add(
        {"ge", ">="}, {"b"}, TEST {
          UNUSED;
          return compare(it, given.required(0)) >= 0;
        });
    add(
        {"filter"}, {}, TEST {
          UNUSED;
          return it.text() && find_filter(*it.text());
        });
    add(
        {"test"}, {}, TEST {
          UNUSED;
          return it.text() && find_test(*it.text());
        });
    return out;
  }();
  return table;
}

#undef TEST
#undef UNUSED

}  // namespace

const Builtin* find_test(const std::string& name) {
  auto found = tests().find(name);
  return found == tests().end() ? nullptr : &found->second;
}

}  // namespace tessera::chat
