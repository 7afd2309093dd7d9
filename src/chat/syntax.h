// A parsed template: a tree of statements and expressions, each with its line.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "chat/value.h"

namespace tessera::chat {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Expression {
  enum Kind {
    constant,
    name,
    list,
    tuple,
    dict,       // children: key, value, key, value...
    attribute,  // child 0 . text
    item,       // child 0 [child 1]
    slice,      // child 0 [child 1 : child 2 : child 3], absent ones null
    call,       // child 0 (arguments)
    filter,     // child 0 | text (arguments); child 0 is null for the body of a filter block
    test,       // child 0 is text (arguments)
    negative,
    positive,
    binary,      // text is the operator
    comparison,  // children: operands; names: the operators between them
    both,        // and
    either,      // or
    negation,    // not
    conditional  // child 0 if child 1 else child 2 (or null)
  };
  Kind kind;
  int line = 0;
  int height = 0;  // levels below, bounded by the parser
  std::string text = {};
  Value value = {};
  std::vector<ExpressionPtr> children = {};
  std::vector<std::string> names = {};  // of comparison; of named arguments, which stand last among `arguments`
  std::vector<ExpressionPtr> arguments = {};
};

// What `for`, `set` and `with` assign to: one name, several, or a field of a namespace.
struct Target {
  std::vector<std::string> names;
  bool unpacks = false;
  std::string field = {};  // names[0].field
};

struct Statement;
using Body = std::vector<std::unique_ptr<Statement>>;

struct Statement {
  enum Kind {
    text,
    print,
    condition,
    loop,
    set,
    set_body,
    macro,
    call_body,
    filter_body,
    with,
    scope,
    break_loop,
    continue_loop
  };
  Kind kind;
  int line = 0;
  std::string text_value = {};  // text; name of the macro
  std::vector<Target> targets = {};
  std::vector<ExpressionPtr> expressions =
      {};                                    // condition: one for each branch; macro: defaults, null for none
  std::vector<std::string> parameters = {};  // of a macro or the caller
  std::vector<Body> bodies = {};             // condition: branches, then perhaps else; loop: body, else
  ExpressionPtr filter = nullptr;            // loop: `if`
  bool recursive = false;
};

// Throws TemplateError with line and construct for what is no template or uses what is not supported.
Body parse_template(std::string_view source);

}  // namespace tessera::chat
