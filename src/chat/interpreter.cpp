#include "chat/interpreter.h"

#include <fmt/format.h>

#include <algorithm>

#include "chat/located.h"
#include "chat/operators.h"

namespace tessera::chat {

namespace {

constexpr int kMaxFrames = 1000;

}  // namespace

class Interpreter::Deeper {
 public:
  explicit Deeper(Interpreter& interpreter) : depth_(interpreter.depth_) {
    if (++depth_ > kMaxFrames) throw TemplateError("it is nested too deeply");
  }
  ~Deeper() { --depth_; }

 private:
  int& depth_;
};

// What `loop` stands for.
struct Interpreter::Loop {
  std::vector<Value> items;
  size_t index = 0;
  int depth = 0;
  std::optional<std::vector<Value>> last_seen = {};
};

std::string Interpreter::run(const Body& body) {
  std::string out;
  out_ = &out;
  execute(body, std::make_shared<Scope>());
  return out;
}

void Interpreter::print(const std::string& text) {
  env_.budget.text(text.size());
  *out_ += text;
}

Interpreter::Flow Interpreter::execute(const Body& body, const ScopePtr& scope) {
  for (const auto& node : body)
    if (Flow flow = execute(*node, scope); flow != Flow::next) return flow;
  return Flow::next;
}

Interpreter::Flow Interpreter::execute(const Statement& node, const ScopePtr& scope) {
  Deeper deeper(*this);
  env_.budget.work();
  return located(node.line, [&]() -> Flow {
    switch (node.kind) {
      case Statement::text:
        print(node.text_value);
        return Flow::next;
      case Statement::print: {
        Value value = evaluate(*node.expressions[0], scope);
        env_.budget.work(value.extent().weight);
        print(value.str());
        return Flow::next;
      }
      case Statement::condition:
        return execute_condition(node, scope);
      case Statement::loop:
        execute_loop(node, scope);
        return Flow::next;
      case Statement::set:
      case Statement::set_body:
        execute_set(node, scope);
        return Flow::next;
      case Statement::macro:
        execute_macro(node, scope);
        return Flow::next;
      case Statement::call_body:
        execute_call(node, scope);
        return Flow::next;
      case Statement::filter_body:
        return execute_filter(node, scope);
      case Statement::with:
        return execute_with(node, scope);
      case Statement::scope:
        return execute(node.bodies[0], std::make_shared<Scope>(Scope{scope}));
      case Statement::break_loop:
        return Flow::break_loop;
      case Statement::continue_loop:
        return Flow::continue_loop;
    }
    return Flow::next;
  });
}

Interpreter::Flow Interpreter::execute_condition(const Statement& node, const ScopePtr& scope) {
  size_t branch = 0;
  while (branch < node.expressions.size() && !evaluate(*node.expressions[branch], scope).truth()) ++branch;
  return branch < node.bodies.size() ? execute(node.bodies[branch], scope) : Flow::next;
}

void Interpreter::assign(const Target& target, Value value, const ScopePtr& scope) {
  if (!target.field.empty()) {
    Value held = evaluate_name(target.names[0], scope);
    if (!held.name_space())
      throw TemplateError(
          fmt::format("'{}' is no namespace, so '{}' cannot be set in it", target.names[0], target.field));
    if (target.field.starts_with('_')) throw TemplateError("a namespace cannot hold names that begin with '_'");
    held.name_space()->fields[target.field] = std::move(value);
    return;
  }
  if (!target.unpacks) {
    scope->names[target.names[0]] = std::move(value);
    return;
  }
  if (value.is_undefined()) throw_undefined(value);
  auto parts = value.elements();
  if (parts.size() != target.names.size())
    throw TemplateError(fmt::format("{} names cannot take {} values", target.names.size(), parts.size()));
  for (size_t i = 0; i < parts.size(); ++i) scope->names[target.names[i]] = std::move(parts[i]);
}

void Interpreter::execute_loop(const Statement& node, const ScopePtr& scope) {
  run_loop(node, scope, evaluate(*node.expressions[0], scope), 0);
}

void Interpreter::run_loop(const Statement& node, const ScopePtr& scope, const Value& over, int depth) {
  Deeper deeper(*this);
  auto loop = std::make_shared<Loop>(Loop{.items = over.elements(), .depth = depth});
  env_.budget.work(loop->items.size());
  if (node.filter) {
    std::erase_if(loop->items, [&](const Value& item) {
      auto inner = std::make_shared<Scope>(Scope{scope});
      assign(node.targets[0], item, inner);
      return !evaluate(*node.filter, inner).truth();
    });
  }
  // As in Jinja's code, `else` runs unless some iteration came to its end.
  bool completed = false;
  Value handle = loop_value(node, scope, loop);
  for (; loop->index < loop->items.size(); ++loop->index) {
    env_.budget.work(4);  // a scope and its names
    auto inner = std::make_shared<Scope>(Scope{scope});
    inner->names["loop"] = handle;
    assign(node.targets[0], loop->items[loop->index], inner);
    Flow flow = execute(node.bodies[0], inner);
    if (flow == Flow::break_loop) break;
    completed |= flow == Flow::next;
  }
  if (!completed && node.bodies.size() > 1) execute(node.bodies[1], std::make_shared<Scope>(Scope{scope}));
}

Value Interpreter::loop_value(const Statement& node, const ScopePtr& scope, const std::shared_ptr<Loop>& loop) {
  auto changed = [loop](Arguments& arguments) -> Value {
    auto& seen = loop->last_seen;
    bool same = seen && seen->size() == arguments.positional.size() &&
                std::equal(seen->begin(), seen->end(), arguments.positional.begin(), equal);
    seen = arguments.positional;
    return !same;
  };
  auto cycle = [loop](Arguments& arguments) -> Value {
    if (arguments.positional.empty()) throw TemplateError("loop.cycle() needs values");
    return arguments.positional[loop->index % arguments.positional.size()];
  };
  auto field = [loop, changed, cycle](const std::string& name) -> Value {
    auto index = static_cast<int64_t>(loop->index), size = std::ssize(loop->items);
    if (name == "index") return index + 1;
    if (name == "index0") return index;
    if (name == "revindex") return size - index;
    if (name == "revindex0") return size - index - 1;
    if (name == "first") return index == 0;
    if (name == "last") return index + 1 == size;
    if (name == "length") return size;
    if (name == "depth") return loop->depth + 1;
    if (name == "depth0") return loop->depth;
    if (name == "previtem")
      return index > 0 ? loop->items[loop->index - 1] : Value::undefined("there is no previous item");
    if (name == "nextitem")
      return index + 1 < size ? loop->items[loop->index + 1] : Value::undefined("there is no next item");
    if (name == "changed") return Callable{"loop.changed", changed};
    if (name == "cycle") return Callable{"loop.cycle", cycle};
    return Value::undefined("");
  };
  // Weak: the handle lies in a scope below this one.
  auto again = [this, &node, outer = std::weak_ptr(scope), depth = loop->depth](Arguments& arguments) -> Value {
    auto alive = outer.lock();
    if (!node.recursive || !alive) throw TemplateError("this loop cannot be called; it is not 'recursive'");
    if (arguments.positional.size() != 1) throw TemplateError("loop() takes one argument");
    std::string text;
    std::string* held = std::exchange(out_, &text);
    run_loop(node, alive, arguments.positional[0], depth + 1);
    out_ = held;
    return text;
  };
  return Callable{"loop", again, field};
}

std::string Interpreter::captured(const Body& body, const ScopePtr& scope) {
  std::string text;
  std::string* held = std::exchange(out_, &text);
  execute(body, scope);
  out_ = held;
  return text;
}

void Interpreter::execute_set(const Statement& node, const ScopePtr& scope) {
  if (node.kind == Statement::set) return assign(node.targets[0], evaluate(*node.expressions[0], scope), scope);
  Value text = captured(node.bodies[0], std::make_shared<Scope>(Scope{scope}));
  if (!node.expressions.empty()) {
    const Value* held = std::exchange(filtered_, &text);
    Value result = evaluate(*node.expressions[0], scope);
    filtered_ = held;
    text = result;
  }
  assign(node.targets[0], std::move(text), scope);
}

Value Interpreter::make_macro(const Statement& node, const ScopePtr& scope, const std::string& name) {
  return Callable{
      name, [this, &node, name, outer = std::weak_ptr(scope)](Arguments& arguments) {
        auto alive = outer.lock();
        if (!alive)
          throw TemplateError(fmt::format("the macro '{}' is called outside of where it was made", name));
        return call_macro(node, alive, name, arguments);
      }};
}

void Interpreter::execute_macro(const Statement& node, const ScopePtr& scope) {
  scope->names[node.text_value] = make_macro(node, scope, node.text_value);
}

Value Interpreter::call_macro(const Statement& node, const ScopePtr& scope, const std::string& name,
                              Arguments& arguments) {
  Deeper deeper(*this);
  auto inner = std::make_shared<Scope>(Scope{scope});
  if (arguments.positional.size() > node.parameters.size())
    throw TemplateError(fmt::format("{}() takes at most {} arguments, got {}", name, node.parameters.size(),
                                    arguments.positional.size()));
  for (size_t i = 0; i < arguments.positional.size(); ++i)
    inner->names[node.parameters[i]] = arguments.positional[i];
  for (auto& [key, value] : arguments.named) {
    bool known = key == "caller" ||
                 std::find(node.parameters.begin(), node.parameters.end(), key) != node.parameters.end();
    if (!known) throw TemplateError(fmt::format("{}() has no argument '{}'", name, key));
    if (!inner->names.emplace(key, value).second)
      throw TemplateError(fmt::format("{}() got its argument '{}' twice", name, key));
  }
  size_t first_default = node.kind == Statement::call_body ? 1 : 0;
  for (size_t i = 0; i < node.parameters.size(); ++i) {
    if (inner->names.contains(node.parameters[i])) continue;
    const auto& fallback = node.expressions[first_default + i];
    inner->names[node.parameters[i]] =
        fallback
            ? evaluate(*fallback, inner)
            : Value::undefined(fmt::format("argument '{}' of {}() was not given", node.parameters[i], name));
  }
  return captured(node.bodies[0], inner);
}

void Interpreter::execute_call(const Statement& node, const ScopePtr& scope) {
  const Expression& target = *node.expressions[0];
  Arguments arguments = evaluate_arguments(target, scope);
  arguments.named.emplace_back("caller", make_macro(node, scope, "caller"));
  print(call(child(target, 0, scope), arguments).str());
}

Interpreter::Flow Interpreter::execute_with(const Statement& node, const ScopePtr& scope) {
  auto inner = std::make_shared<Scope>(Scope{scope});
  for (size_t i = 0; i < node.targets.size(); ++i)
    assign(node.targets[i], evaluate(*node.expressions[i], scope), inner);
  return execute(node.bodies[0], inner);
}

Interpreter::Flow Interpreter::execute_filter(const Statement& node, const ScopePtr& scope) {
  std::string text;
  std::string* outer = std::exchange(out_, &text);
  Flow flow = execute(node.bodies[0], std::make_shared<Scope>(Scope{scope}));
  out_ = outer;
  if (flow != Flow::next) return flow;  // what the block wrote is lost, as in Jinja
  Value body(text);
  const Value* held = std::exchange(filtered_, &body);
  print(evaluate(*node.expressions[0], scope).str());
  filtered_ = held;
  return Flow::next;
}

Value Interpreter::evaluate(const Expression& node, const ScopePtr& scope) {
  Deeper deeper(*this);
  env_.budget.work();
  return located(node.line, [&] { return evaluate_kind(node, scope); });
}

Value Interpreter::evaluate_name(const std::string& name, const ScopePtr& scope) {
  for (const Scope* at = scope.get(); at; at = at->outer.get())
    if (auto found = at->names.find(name); found != at->names.end()) return found->second;
  if (const Value* given = variables_.find(name)) return *given;
  if (const Builtin* global = find_global(name))
    return Callable{name,
                    [this, global](Arguments& arguments) { return global->call(env_, Value(), arguments); }};
  return Value::undefined(fmt::format("'{}' is undefined", name));
}

std::vector<Value> Interpreter::evaluate_all(const std::vector<ExpressionPtr>& nodes, const ScopePtr& scope) {
  std::vector<Value> values;
  for (const auto& node : nodes) values.push_back(evaluate(*node, scope));
  return values;
}

Arguments Interpreter::evaluate_arguments(const Expression& node, const ScopePtr& scope) {
  Arguments out;
  size_t named_from = node.arguments.size() - node.names.size();
  for (size_t i = 0; i < node.arguments.size(); ++i) {
    Value value = evaluate(*node.arguments[i], scope);
    if (i < named_from)
      out.positional.push_back(std::move(value));
    else
      out.named.emplace_back(node.names[i - named_from], std::move(value));
  }
  return out;
}

Value Interpreter::call(const Value& function, Arguments& arguments) {
  if (function.is_undefined()) throw_undefined(function);
  if (!function.callable()) throw TemplateError(fmt::format("a {} cannot be called", function.type_name()));
  return function.callable()->call(arguments);
}

Value Interpreter::evaluate_call(const Expression& node, const ScopePtr& scope) {
  Value function = child(node, 0, scope);
  Arguments arguments = evaluate_arguments(node, scope);
  return call(function, arguments);
}

Value Interpreter::evaluate_filter(const Expression& node, const ScopePtr& scope) {
  Value value = node.children[0] ? child(node, 0, scope) : *filtered_;
  return find_filter(node.text)->call(env_, value, evaluate_arguments(node, scope));
}

Value Interpreter::evaluate_dict(const Expression& node, const ScopePtr& scope) {
  Dict out;
  for (size_t i = 0; i < node.children.size(); i += 2) {
    Value key = child(node, i, scope);
    if (key.sequence() || key.dict()) throw TemplateError(fmt::format("a {} cannot be a key", key.type_name()));
    out.set(key, child(node, i + 1, scope));
  }
  return out;
}

Value Interpreter::evaluate_comparison(const Expression& node, const ScopePtr& scope) {
  Value left = child(node, 0, scope);
  for (size_t i = 0; i < node.names.size(); ++i) {
    Value right = child(node, i + 1, scope);
    if (!comparison(env_, node.names[i], left, right)) return false;
    left = right;
  }
  return true;
}

Value Interpreter::evaluate_kind(const Expression& node, const ScopePtr& scope) {
  auto bound = [&](size_t i) { return node.children[i] ? child(node, i, scope) : Value(); };
  switch (node.kind) {
    case Expression::constant:
      return node.value;
    case Expression::name:
      return evaluate_name(node.text, scope);
    case Expression::list:
      return evaluate_all(node.children, scope);
    case Expression::tuple:
      return Sequence{.items = evaluate_all(node.children, scope), .kind = Sequence::tuple};
    case Expression::dict:
      return evaluate_dict(node, scope);
    case Expression::attribute:
      return attribute(env_, child(node, 0, scope), node.text);
    case Expression::item: {
      Value subject = child(node, 0, scope);
      env_.budget.work(subject.text() ? subject.text()->size() / 64 : 0);
      return item(env_, subject, child(node, 1, scope));
    }
    case Expression::slice: {
      Value subject = child(node, 0, scope);
      return slice(env_, subject, bound(1), bound(2), bound(3));
    }
    case Expression::call:
      return evaluate_call(node, scope);
    case Expression::filter:
      return evaluate_filter(node, scope);
    case Expression::test: {
      Value subject = child(node, 0, scope);
      const Builtin& test = *find_test(node.text);
      Arguments arguments = evaluate_arguments(node, scope);
      if (test.parameters.empty() && !arguments.positional.empty())
        throw TemplateError(fmt::format("the test '{}' takes no arguments", test.name));
      return test.call(env_, subject, arguments);
    }
    case Expression::negative:
      return negative(child(node, 0, scope));
    case Expression::positive: {
      Value value = child(node, 0, scope);
      if (value.is_undefined()) throw_undefined(value);
      if (!value.is_number()) throw TemplateError(fmt::format("'+' does not work on a {}", value.type_name()));
      return value.is_bool() ? Value(value.integer()) : value;
    }
    case Expression::binary: {
      Value left = child(node, 0, scope);
      return binary(env_, node.text, left, child(node, 1, scope));
    }
    case Expression::comparison:
      return evaluate_comparison(node, scope);
    case Expression::both: {
      Value left = child(node, 0, scope);
      return left.truth() ? child(node, 1, scope) : left;
    }
    case Expression::either: {
      Value left = child(node, 0, scope);
      return left.truth() ? left : child(node, 1, scope);
    }
    case Expression::negation:
      return !child(node, 0, scope).truth();
    case Expression::conditional: {
      if (child(node, 1, scope).truth()) return child(node, 0, scope);
      return node.children[2] ? child(node, 2, scope) : Value::undefined("the inline 'if' has no 'else'");
    }
  }
  return Value();
}

}  // namespace tessera::chat
