// The statements of a template: what stands between {% and %}.
#include <algorithm>

#include "chat/parser.h"

namespace tessera::chat {

namespace {

constexpr int kMaxNesting = 100;

class TemplateParser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Body run() {
    Body body = parse_body({});
    if (peek().kind != Token::end) unexpected();
    return body;
  }

 private:
  using StatementPtr = std::unique_ptr<Statement>;
  using Ends = std::vector<std::string_view>;

  StatementPtr make(Statement::Kind kind) const {
    auto node = std::make_unique<Statement>();
    node->kind = kind;
    node->line = peek().line;
    return node;
  }

  // Up to the block that begins with one of `ends`, which is left at its name; or to the end of the template.
  Body parse_body(const Ends& ends) {
    if (++nesting_ > kMaxNesting) fail(fmt::format("blocks are nested deeper than {} levels", kMaxNesting));
    Body body;
    while (peek().kind != Token::end) {
      if (peek().kind == Token::text) {
        body.push_back(make(Statement::text));
        body.back()->text_value = next().value;
      } else if (peek().kind == Token::print_begin) {
        body.push_back(parse_print());
      } else {
        next();
        if (std::find(ends.begin(), ends.end(), peek().value) != ends.end() && peek().kind == Token::name) {
          --nesting_;
          return body;
        }
        body.push_back(parse_statement());
        end_block();
      }
    }
    if (!ends.empty()) fail(fmt::format("the template ends without '{}'", ends.back()));
    --nesting_;
    return body;
  }

  void end_block() {
    if (peek().kind != Token::block_end) unexpected();
    next();
  }

  // The body of a block, from the end of its opening tag to inside its closing tag.
  Body parse_block(const Ends& ends) {
    end_block();
    Body body = parse_body(ends);
    if (ends.size() == 1) next();
    return body;
  }

  StatementPtr parse_print() {
    StatementPtr node = make(Statement::print);
    next();
    node->expressions.push_back(parse_tuple());
    if (peek().kind != Token::print_end) unexpected();
    next();
    return node;
  }

  StatementPtr parse_statement() {
    std::string name = expect_name();
    if (name == "if") return parse_condition();
    if (name == "for") return parse_loop();
    if (name == "set") return parse_set();
    if (name == "macro") return parse_macro();
    if (name == "call") return parse_call_block();
    if (name == "filter") return parse_filter_block();
    if (name == "with") return parse_with();
    if (name == "generation") return parse_generation();
    if (name == "break" || name == "continue") return parse_jump(name);
    if (name == "autoescape" || name == "block" || name == "extends" || name == "from" || name == "import" ||
        name == "include" || name == "do" || name == "trans")
      fail(fmt::format("the tag '{}' is not supported", name));
    fail(fmt::format("unknown tag '{}'", name));
  }

  StatementPtr parse_condition() {
    StatementPtr node = make(Statement::condition);
    node->expressions.push_back(parse_tuple(false));
    while (true) {
      node->bodies.push_back(parse_block({"elif", "else", "endif"}));
      if (skip_name("elif")) {
        node->expressions.push_back(parse_tuple(false));
      } else if (skip_name("else")) {
        node->bodies.push_back(parse_block({"endif"}));
        return node;
      } else {
        next();
        return node;
      }
    }
  }

  StatementPtr parse_loop() {
    StatementPtr node = make(Statement::loop);
    node->targets.push_back(parse_target(false));
    if (!skip_name("in")) fail(fmt::format("expected 'in', got '{}'", peek().value));
    node->expressions.push_back(parse_tuple(false, "recursive"));
    if (skip_name("if")) node->filter = parse_expression();
    node->recursive = skip_name("recursive");
    ++loops_;
    node->bodies.push_back(parse_block({"else", "endfor"}));
    --loops_;
    if (skip_name("else"))
      node->bodies.push_back(parse_block({"endfor"}));
    else
      next();
    return node;
  }

  StatementPtr parse_jump(const std::string& name) {
    if (loops_ == 0) fail(fmt::format("'{}' outside of a loop", name));
    return make(name == "break" ? Statement::break_loop : Statement::continue_loop);
  }

  std::string parse_assigned_name() {
    std::string name = expect_name();
    for (std::string_view fixed : {"true", "false", "none", "True", "False", "None"})
      if (name == fixed) fail(fmt::format("cannot assign to '{}'", name));
    return name;
  }

  Target parse_target(bool with_namespace) {
    bool in_parentheses = skip_op("(");
    Target target{.names = {parse_assigned_name()}};
    if (with_namespace && skip_op(".")) {
      target.field = expect_name();
      return target;
    }
    while (skip_op(",")) {
      target.unpacks = true;
      if (peek().kind == Token::name && !peek().is_name("in")) target.names.push_back(parse_assigned_name());
    }
    if (in_parentheses) expect_op(")");
    return target;
  }

  StatementPtr parse_set() {
    StatementPtr node = make(Statement::set);
    node->targets.push_back(parse_target(true));
    if (skip_op("=")) {
      node->expressions.push_back(parse_tuple());
      return node;
    }
    node->kind = Statement::set_body;
    if (peek().is_op("|")) node->expressions.push_back(parse_filters(nullptr));
    node->bodies.push_back(parse_block({"endset"}));
    return node;
  }

  void parse_signature(Statement& node) {
    expect_op("(");
    while (!peek().is_op(")")) {
      if (!node.parameters.empty()) expect_op(",");
      if (peek().is_op(")")) break;
      node.parameters.push_back(parse_assigned_name());
      node.expressions.push_back(skip_op("=") ? parse_expression() : nullptr);
      bool gap = !node.expressions.back() && node.expressions.size() > 1 &&
                 node.expressions[node.expressions.size() - 2];
      if (gap) fail(fmt::format("parameter '{}' without a default follows one with", node.parameters.back()));
    }
    expect_op(")");
  }

  StatementPtr parse_macro() {
    StatementPtr node = make(Statement::macro);
    node->text_value = parse_assigned_name();
    parse_signature(*node);
    int outer = std::exchange(loops_, 0);
    node->bodies.push_back(parse_block({"endmacro"}));
    loops_ = outer;
    return node;
  }

  // The call comes first among the expressions, the defaults of the caller's parameters follow.
  StatementPtr parse_call_block() {
    StatementPtr node = make(Statement::call_body);
    node->text_value = "caller";
    if (peek().is_op("(")) parse_signature(*node);
    node->expressions.insert(node->expressions.begin(), parse_expression());
    if (node->expressions[0]->kind != Expression::call) fail("expected the call of a macro");
    int outer = std::exchange(loops_, 0);
    node->bodies.push_back(parse_block({"endcall"}));
    loops_ = outer;
    return node;
  }

  StatementPtr parse_filter_block() {
    StatementPtr node = make(Statement::filter_body);
    node->expressions.push_back(parse_filters(nullptr, true));
    node->bodies.push_back(parse_block({"endfilter"}));
    return node;
  }

  StatementPtr parse_with() {
    StatementPtr node = make(Statement::with);
    while (peek().kind != Token::block_end) {
      if (!node->targets.empty()) expect_op(",");
      node->targets.push_back(parse_target(false));
      expect_op("=");
      node->expressions.push_back(parse_expression());
    }
    node->bodies.push_back(parse_block({"endwith"}));
    return node;
  }

  // Marks what the model itself wrote; Hugging Face renders it as a scope of its own.
  StatementPtr parse_generation() {
    StatementPtr node = make(Statement::scope);
    node->bodies.push_back(parse_block({"endgeneration"}));
    return node;
  }

  int nesting_ = 0, loops_ = 0;
};

}  // namespace

Body parse_template(std::string_view source) {
  return TemplateParser(tokenize(source)).run();
}

}  // namespace tessera::chat
