// Runs a parsed template once. Scopes are Jinja's: `for`, macros, `with`, filter and set blocks have their own,
// `if` has not.
// Threads: one.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>

#include "chat/builtins.h"
#include "chat/syntax.h"

namespace tessera::chat {

class Interpreter {
 public:
  // `variables`: what the template is rendered with.
  Interpreter(Env& env, const Dict& variables) : env_(env), variables_(variables) {}
  // Throws TemplateError with the line.
  std::string run(const Body& body);

 private:
  struct Scope {
    std::shared_ptr<Scope> outer;
    std::unordered_map<std::string, Value> names = {};
  };
  using ScopePtr = std::shared_ptr<Scope>;
  enum class Flow { next, break_loop, continue_loop };
  struct Loop;
  class Deeper;

  Flow execute(const Body& body, const ScopePtr& scope);
  Flow execute(const Statement& node, const ScopePtr& scope);
  Flow execute_condition(const Statement& node, const ScopePtr& scope);
  void execute_loop(const Statement& node, const ScopePtr& scope);
  void run_loop(const Statement& node, const ScopePtr& scope, const Value& over, int depth);
  Value loop_value(const Statement& node, const ScopePtr& scope, const std::shared_ptr<Loop>& loop);
  void execute_set(const Statement& node, const ScopePtr& scope);
  void execute_macro(const Statement& node, const ScopePtr& scope);
  void execute_call(const Statement& node, const ScopePtr& scope);
  Flow execute_with(const Statement& node, const ScopePtr& scope);
  Flow execute_filter(const Statement& node, const ScopePtr& scope);
  std::string captured(const Body& body, const ScopePtr& scope);
  Value make_macro(const Statement& node, const ScopePtr& scope, const std::string& name);
  Value call_macro(const Statement& node, const ScopePtr& scope, const std::string& name, Arguments& arguments);
  void assign(const Target& target, Value value, const ScopePtr& scope);
  void print(const std::string& text);

  Value evaluate(const Expression& node, const ScopePtr& scope);
  Value evaluate_kind(const Expression& node, const ScopePtr& scope);
  Value evaluate_name(const std::string& name, const ScopePtr& scope);
  Value evaluate_dict(const Expression& node, const ScopePtr& scope);
  Value evaluate_call(const Expression& node, const ScopePtr& scope);
  Value evaluate_filter(const Expression& node, const ScopePtr& scope);
  Value evaluate_comparison(const Expression& node, const ScopePtr& scope);
  std::vector<Value> evaluate_all(const std::vector<ExpressionPtr>& nodes, const ScopePtr& scope);
  Arguments evaluate_arguments(const Expression& node, const ScopePtr& scope);
  Value call(const Value& function, Arguments& arguments);
  Value child(const Expression& node, size_t i, const ScopePtr& scope) {
    return evaluate(*node.children[i], scope);
  }

  Env& env_;
  const Dict& variables_;
  std::string* out_ = nullptr;
  const Value* filtered_ = nullptr;  // what the filters of a block are applied to
  int depth_ = 0;
};

}  // namespace tessera::chat
