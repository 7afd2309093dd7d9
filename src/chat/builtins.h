// The filters, tests, methods and global functions of templates, by name. Which exist is known when a template
// is parsed, so one that needs others is refused before it runs. Threads: the tables are constant; an Env
// belongs to one rendering.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "chat/budget.h"
#include "chat/value.h"

namespace tessera::chat {

struct Env {
  Budget budget;
  std::function<std::string(const std::string& format)> strftime_now = {};
  // All that were made: they may hold each other, so whoever rendered empties them.
  std::vector<Value::NamespacePtr> namespaces = {};
};

// The arguments of one call, by the position of their parameter.
class Given {
 public:
  // Throws for arguments that no parameter takes. Without parameters all arguments stay in raw().
  Given(std::string_view function, const std::vector<std::string>& parameters, const Arguments& raw);

  const Arguments& raw() const { return raw_; }
  const Value* find(size_t i) const { return i < values_.size() ? values_[i] : nullptr; }
  Value value(size_t i, Value fallback) const { return find(i) ? *find(i) : std::move(fallback); }
  bool flag(size_t i, bool fallback = false) const { return find(i) ? find(i)->truth() : fallback; }
  const Value& required(size_t i) const;
  // These throw for values of another kind.
  int64_t integer(size_t i, int64_t fallback) const;
  const std::string& text(size_t i) const;

 private:
  [[noreturn]] void refuse(size_t i, const char* expected) const;
  std::string_view function_;
  const std::vector<std::string>& parameters_;
  const Arguments& raw_;
  std::vector<const Value*> values_;
};

struct Builtin {
  std::string name;
  std::vector<std::string> parameters;  // none: takes anything, see Given
  Value (*run)(Env&, const Value& subject, const Given&);

  Value call(Env& env, const Value& subject, const Arguments& arguments) const;
};

// Null when there is none.
const Builtin* find_filter(const std::string& name);
const Builtin* find_test(const std::string& name);
const Builtin* find_global(const std::string& name);
// Of str, dict and list. Those that would change a value do not exist, as in Hugging Face's sandbox.
const Builtin* find_method(const Value& subject, const std::string& name);

// Names that Jinja knows and we do not; a template that uses them is refused.
bool is_refused_global(const std::string& name);

// subject.name and subject[key], undefined where there is nothing. Throws when `subject` is undefined itself.
Value attribute(Env& env, const Value& subject, const std::string& name);
Value item(Env& env, const Value& subject, const Value& key);
// `a.b.0`, as the filters' attribute= takes it.
Value attribute_path(Env& env, const Value& subject, const Value& path);

[[noreturn]] void throw_undefined(const Value& undefined);

}  // namespace tessera::chat
