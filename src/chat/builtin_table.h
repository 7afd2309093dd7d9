// A table of builtins, each a lambda that takes only what it needs, in this order: the rendering, the subject,
// the arguments.
//
//   table.add("lower", {}, [](const Value& it) -> Value { return lower(*it.text()); });
//   table.add({"default", "d"}, {"default_value"}, [](const Value& it, const Given& given) -> Value { ... });
#pragma once

#include <initializer_list>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <vector>

#include "chat/builtins.h"

namespace tessera::chat {

class BuiltinTable {
 public:
  template <class Lambda>
  void add(std::initializer_list<const char*> names, const std::vector<std::string>& parameters, Lambda) {
    for (const char* name : names) builtins_.emplace(name, Builtin{name, parameters, run<Lambda>});
  }
  void add(std::initializer_list<const char*> names, const std::vector<std::string>& parameters,
           Value (*function)(Env&, const Value&, const Given&)) {
    for (const char* name : names) builtins_.emplace(name, Builtin{name, parameters, function});
  }
  template <class Lambda>
  void add(const char* name, const std::vector<std::string>& parameters, Lambda lambda) {
    add({name}, parameters, lambda);
  }
  // Null when there is none.
  const Builtin* find(const std::string& name) const {
    auto found = builtins_.find(name);
    return found == builtins_.end() ? nullptr : &found->second;
  }

 private:
  // A lambda that captures nothing is made anew from its type.
  template <class Lambda>
  static Value run([[maybe_unused]] Env& env, [[maybe_unused]] const Value& subject,
                   [[maybe_unused]] const Given& given) {
    constexpr Lambda lambda;
    if constexpr (std::is_invocable_v<Lambda, Env&, const Value&, const Given&>)
      return lambda(env, subject, given);
    else if constexpr (std::is_invocable_v<Lambda, Env&, const Value&>)
      return lambda(env, subject);
    else if constexpr (std::is_invocable_v<Lambda, Env&, const Given&>)
      return lambda(env, given);
    else if constexpr (std::is_invocable_v<Lambda, const Value&, const Given&>)
      return lambda(subject, given);
    else if constexpr (std::is_invocable_v<Lambda, const Given&>)
      return lambda(given);
    else
      return lambda(subject);
  }

  std::unordered_map<std::string, Builtin> builtins_;
};

}  // namespace tessera::chat
