// Expressions of a template from tokens, by Jinja's grammar. The statements are in parse_template().
#pragma once

#include <initializer_list>
#include <utility>
#include <vector>

#include "chat/lexer.h"
#include "chat/syntax.h"

namespace tessera::chat {

class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

 protected:
  ExpressionPtr parse_expression(bool with_conditional = true);
  // Expressions with commas between them are a tuple; ends at `end_name` or what cannot begin an expression.
  ExpressionPtr parse_tuple(bool with_conditional = true, std::string_view end_name = "",
                            bool in_parentheses = false);
  void parse_arguments(Expression& into);  // at "("
  ExpressionPtr parse_filters(ExpressionPtr node, bool first_is_named = false);

  const Token& peek() const { return tokens_[at_]; }
  const Token& next() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool skip_op(std::string_view op);
  bool skip_name(std::string_view name);
  void expect_op(std::string_view op);
  std::string expect_name();
  [[noreturn]] void fail(const std::string& what) const;
  [[noreturn]] void unexpected() const;

 private:
  class Depth;
  ExpressionPtr parse_conditional();
  ExpressionPtr parse_either();
  ExpressionPtr parse_both();
  ExpressionPtr parse_negation();
  ExpressionPtr parse_comparison();
  ExpressionPtr parse_sum();
  ExpressionPtr parse_concatenation();
  ExpressionPtr parse_product();
  ExpressionPtr parse_power();
  ExpressionPtr parse_unary(bool with_filters = true);
  ExpressionPtr parse_primary();
  ExpressionPtr parse_postfix(ExpressionPtr node);
  ExpressionPtr parse_subscript(ExpressionPtr node);
  ExpressionPtr parse_item(ExpressionPtr node);
  ExpressionPtr parse_call(ExpressionPtr node);
  ExpressionPtr parse_test(ExpressionPtr node);
  ExpressionPtr parse_list();
  ExpressionPtr parse_dict();
  ExpressionPtr parse_name();
  ExpressionPtr parse_number();
  using Rule = ExpressionPtr (ExpressionParser::*)();
  ExpressionPtr parse_binary(Rule operand, std::initializer_list<std::string_view> operators);
  ExpressionPtr make(Expression::Kind kind, std::string text = {}) const;
  void adopt(Expression& parent, ExpressionPtr child, bool as_argument = false) const;
  std::string comparison_operator();

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace tessera::chat
