// Tests of templates: what stands after `is`.
#include <fmt/format.h>

#include <cmath>

#include "chat/builtin_table.h"
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

const BuiltinTable& tests() {
  static const BuiltinTable table = [] {
    BuiltinTable out;
    out.add("defined", {}, [](const Value& it) -> Value { return !it.is_undefined(); });
    out.add("undefined", {}, [](const Value& it) -> Value { return it.is_undefined(); });
    out.add("none", {}, [](const Value& it) -> Value { return it.is_none(); });
    out.add("boolean", {}, [](const Value& it) -> Value { return it.is_bool(); });
    out.add("true", {}, [](const Value& it) -> Value { return it.is_bool() && it.truth(); });
    out.add("false", {}, [](const Value& it) -> Value { return it.is_bool() && !it.truth(); });
    out.add("integer", {}, [](const Value& it) -> Value { return is_whole(it); });
    out.add("float", {}, [](const Value& it) -> Value { return it.is_float(); });
    out.add("number", {}, [](const Value& it) -> Value { return it.is_number(); });
    out.add("string", {}, [](const Value& it) -> Value { return it.is_text(); });
    out.add("mapping", {}, [](const Value& it) -> Value { return it.dict() != nullptr; });
    out.add("iterable", {}, [](const Value& it) -> Value { return it.iterable(); });
    out.add("sequence", {}, [](const Value& it) -> Value {
      // An undefined value has a length of 0 and an access that fails, which is enough for Jinja.
      return it.is_undefined() || it.is_text() || it.dict() ||
             (it.sequence() && it.sequence()->kind <= Sequence::range);
    });
    out.add("callable", {},
            [](const Value& it) -> Value { return it.callable() != nullptr || it.is_undefined(); });
    out.add("odd", {}, [](const Value& it) -> Value { return parity(it, true); });
    out.add("even", {}, [](const Value& it) -> Value { return parity(it, false); });
    out.add("lower", {}, [](const Value& it) -> Value { return all_case(it, is_lower, is_upper); });
    out.add("upper", {}, [](const Value& it) -> Value { return all_case(it, is_upper, is_lower); });
    out.add("divisibleby", {"num"},
            [](const Value& it, const Given& given) -> Value { return divisible(it, given.required(0)); });
    out.add("sameas", {"other"},
            [](const Value& it, const Given& given) -> Value { return same(it, given.required(0)); });
    out.add("in", {"seq"},
            [](const Value& it, const Given& given) -> Value { return contains(given.required(0), it); });
    out.add({"eq", "equalto", "=="}, {"b"},
            [](const Value& it, const Given& given) -> Value { return equal(it, given.required(0)); });
    out.add({"ne", "!="}, {"b"},
            [](const Value& it, const Given& given) -> Value { return !equal(it, given.required(0)); });
    out.add({"lt", "lessthan", "<"}, {"b"},
            [](const Value& it, const Given& given) -> Value { return compare(it, given.required(0)) < 0; });
    out.add({"le", "<="}, {"b"},
            [](const Value& it, const Given& given) -> Value { return compare(it, given.required(0)) <= 0; });
    out.add({"gt", "greaterthan", ">"}, {"b"},
            [](const Value& it, const Given& given) -> Value { return compare(it, given.required(0)) > 0; });
    out.add({"ge", ">="}, {"b"},
            [](const Value& it, const Given& given) -> Value { return compare(it, given.required(0)) >= 0; });
    out.add("filter", {}, [](const Value& it) -> Value { return it.text() && find_filter(*it.text()); });
    out.add("test", {}, [](const Value& it) -> Value { return it.text() && find_test(*it.text()); });
    return out;
  }();
  return table;
}

}  // namespace

const Builtin* find_test(const std::string& name) {
  return tests().find(name);
}

}  // namespace tessera::chat
