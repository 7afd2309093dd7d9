// Functions that every template can call.
#include <fmt/format.h>

#include <algorithm>

#include "chat/builtin_table.h"

namespace tessera::chat {

namespace {

constexpr uint64_t kMaxRange = 100'000;  // as Jinja's sandbox

Value make_range(Env& env, const Given& given) {
  const auto& bounds = given.raw().positional;
  if (bounds.empty() || bounds.size() > 3 || !given.raw().named.empty())
    throw TemplateError("range() takes 1 to 3 numbers");
  for (const Value& bound : bounds)
    if (!bound.is_integer() && !bound.is_bool())
      throw TemplateError(fmt::format("range() takes integers, not a {}", bound.type_name()));
  int64_t start = bounds.size() == 1 ? 0 : bounds[0].integer(),
          stop = bounds[bounds.size() == 1 ? 0 : 1].integer();
  int64_t step = bounds.size() == 3 ? bounds[2].integer() : 1;
  if (step == 0) throw TemplateError("range() needs a step that is not 0");
  uint64_t distance = step > 0 ? static_cast<uint64_t>(stop) - static_cast<uint64_t>(start)
                               : static_cast<uint64_t>(start) - static_cast<uint64_t>(stop);
  uint64_t stride = step > 0 ? static_cast<uint64_t>(step) : -static_cast<uint64_t>(step);
  bool empty = step > 0 ? stop <= start : stop >= start;
  uint64_t size = empty ? 0 : (distance - 1) / stride + 1;
  if (size > kMaxRange) throw TemplateError(fmt::format("range() is longer than {}", kMaxRange));
  Sequence out{.kind = Sequence::range};
  for (uint64_t i = 0; i < size; ++i) out.items.emplace_back(start + static_cast<int64_t>(i) * step);
  env.budget.work(out.items.size());
  return out;
}

// dict(mapping or pairs, name=value...)
Dict make_dict(Env& env, const Given& given) {
  Dict out;
  if (given.raw().positional.size() > 1) throw TemplateError("dict() takes one positional argument");
  for (const Value& from : given.raw().positional) {
    env.budget.work(from.extent().weight);
    if (const Dict* dict = from.dict()) {
      for (const auto& [key, value] : dict->items()) out.set(key, value);
      continue;
    }
    for (const Value& pair : from.elements()) {
      auto two = pair.elements();
      if (two.size() != 2) throw TemplateError("dict() needs pairs");
      out.set(two[0], two[1]);
    }
  }
  for (const auto& [name, value] : given.raw().named) out.set(name, value);
  return out;
}

Value make_namespace(Env& env, const Given& given) {
  auto made = std::make_shared<Namespace>();
  Dict fields = make_dict(env, given);
  for (const auto& [key, value] : fields.items()) {
    if (!key.text() || key.text()->starts_with('_'))
      throw TemplateError("a namespace cannot hold names that begin with '_'");
    made->fields[*key.text()] = value;
  }
  env.namespaces.push_back(made);
  return Value(made);
}

const BuiltinTable& globals() {
  static const BuiltinTable table = [] {
    BuiltinTable out;
    out.add("range", {}, [](Env& env, const Given& given) -> Value { return make_range(env, given); });
    out.add("dict", {}, [](Env& env, const Given& given) -> Value { return Value(make_dict(env, given)); });
    out.add("namespace", {}, [](Env& env, const Given& given) -> Value { return make_namespace(env, given); });
    out.add("raise_exception", {"message"},
            [](const Given& given) -> Value { throw TemplateError(given.required(0).str()); });
    out.add("strftime_now", {"format"},
            [](Env& env, const Given& given) -> Value { return env.strftime_now(given.text(0)); });
    return out;
  }();
  return table;
}

}  // namespace

const Builtin* find_global(const std::string& name) {
  return globals().find(name);
}

bool is_refused_global(const std::string& name) {
  constexpr const char* kRefused[] = {"lipsum", "cycler", "joiner",  "varargs",  "kwargs",
                                      "self",   "super",  "gettext", "ngettext", "_"};
  return std::any_of(std::begin(kRefused), std::end(kRefused),
                     [&](const char* refused) { return name == refused; });
}

}  // namespace tessera::chat
