#include "chat/builtins.h"

#include <fmt/format.h>

#include <algorithm>

#include "chat/characters.h"

namespace tessera::chat {

Given::Given(std::string_view function, const std::vector<std::string>& parameters, const Arguments& raw)
    : function_(function), parameters_(parameters), raw_(raw), values_(parameters.size()) {
  if (parameters.empty()) return;
  if (raw.positional.size() > parameters.size())
    throw TemplateError(fmt::format("{}() takes at most {} arguments, got {}", function, parameters.size(),
                                    raw.positional.size()));
  for (size_t i = 0; i < raw.positional.size(); ++i) values_[i] = &raw.positional[i];
  for (const auto& [name, value] : raw.named) {
    auto place = std::find(parameters.begin(), parameters.end(), name);
    if (place == parameters.end())
      throw TemplateError(fmt::format("{}() has no argument '{}'", function, name));
    auto i = static_cast<size_t>(place - parameters.begin());
    if (values_[i]) throw TemplateError(fmt::format("{}() got its argument '{}' twice", function, name));
    values_[i] = &value;
  }
}

void Given::refuse(size_t i, const char* expected) const {
  throw TemplateError(fmt::format("{}() needs {} as '{}'{}", function_, expected, parameters_[i],
                                  find(i) ? fmt::format(", not a {}", find(i)->type_name()) : ""));
}
const Value& Given::required(size_t i) const {
  if (!find(i)) refuse(i, "a value");
  return *find(i);
}
int64_t Given::integer(size_t i, int64_t fallback) const {
  if (!find(i)) return fallback;
  if (!find(i)->is_integer() && !find(i)->is_bool()) refuse(i, "an integer");
  return find(i)->integer();
}
const std::string& Given::text(size_t i) const {
  if (!find(i) || !find(i)->text()) refuse(i, "a str");
  return *find(i)->text();
}

Value Builtin::call(Env& env, const Value& subject, const Arguments& arguments) const {
  env.budget.work(subject.extent().weight);
  return run(env, subject, Given(name, parameters, arguments));
}

void throw_undefined(const Value& undefined) {
  throw TemplateError(undefined.undefined_reason());
}

namespace {

Value bound_method(Env& env, const Value& subject, const Builtin& method) {
  return Value(Callable{method.name, [&env, subject, &method](Arguments& arguments) {
                          return method.call(env, subject, arguments);
                        }});
}

// What Python's getattr() finds.
Value own_attribute(Env& env, const Value& subject, const std::string& name) {
  if (const Builtin* method = find_method(subject, name)) return bound_method(env, subject, *method);
  if (Namespace* names = subject.name_space()) {
    auto found = names->fields.find(name);
    if (found != names->fields.end()) return found->second;
  }
  if (const Callable* callable = subject.callable(); callable && callable->field) return callable->field(name);
  return Value::undefined("");
}

// What Python's subject[key] finds.
Value own_item(const Value& subject, const Value& key) {
  if (const Dict* dict = subject.dict()) {
    const Value* found = dict->find_value(key);
    return found ? *found : Value::undefined("");
  }
  if (!key.is_integer() && !key.is_bool()) return Value::undefined("");
  int64_t at = key.integer();
  if (const std::string* text = subject.text()) {
    int64_t size = num_characters(*text);
    at += at < 0 ? size : 0;
    return at >= 0 && at < size ? Value(character_at(*text, at)) : Value::undefined("");
  }
  const Sequence* items = subject.sequence();
  if (!items || items->kind == Sequence::view || items->kind == Sequence::iterator) return Value::undefined("");
  auto size = static_cast<int64_t>(items->items.size());
  at += at < 0 ? size : 0;
  return at >= 0 && at < size ? items->items[static_cast<size_t>(at)] : Value::undefined("");
}

}  // namespace

Value attribute(Env& env, const Value& subject, const std::string& name) {
  if (subject.is_undefined()) throw_undefined(subject);
  Value found = own_attribute(env, subject, name);
  if (found.is_undefined()) found = own_item(subject, name);
  return found.is_undefined()
             ? Value::undefined(fmt::format("a {} has no attribute '{}'", subject.type_name(), name))
             : found;
}

Value item(Env& env, const Value& subject, const Value& key) {
  if (subject.is_undefined()) throw_undefined(subject);
  Value found = own_item(subject, key);
  if (found.is_undefined() && key.text()) found = own_attribute(env, subject, *key.text());
  if (!found.is_undefined()) return found;
  return Value::undefined(fmt::format("a {} has no element {}", subject.type_name(),
                                      key.is_undefined() ? "Undefined" : key.repr()));
}

Value attribute_path(Env& env, const Value& subject, const Value& path) {
  if (!path.text()) return item(env, subject, path);
  Value value = subject;
  for (const std::string& part : split(*path.text(), ".", -1)) {
    bool is_index =
        !part.empty() && part.find_first_not_of("0123456789") == std::string::npos && part.size() < 10;
    value = item(env, value, is_index ? Value(static_cast<int64_t>(std::stoll(part))) : Value(part));
  }
  return value;
}

}  // namespace tessera::chat
