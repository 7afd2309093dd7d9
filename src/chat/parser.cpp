#include "chat/parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "chat/builtins.h"

namespace tessera::chat {

namespace {

constexpr int kMaxDepth = 200, kMaxHeight = 400;

bool one_of(const std::string& text, std::initializer_list<std::string_view> set) {
  return std::find(set.begin(), set.end(), text) != set.end();
}

}  // namespace

class ExpressionParser::Depth {
 public:
  explicit Depth(ExpressionParser& parser) : depth_(parser.depth_) {
    if (++depth_ > kMaxDepth) parser.fail(fmt::format("nested deeper than {} levels", kMaxDepth));
  }
  ~Depth() { --depth_; }

 private:
  int& depth_;
};

void ExpressionParser::fail(const std::string& what) const {
  throw TemplateError(fmt::format("line {}: {}", peek().line, what));
}

void ExpressionParser::unexpected() const {
  const Token& token = peek();
  if (token.kind == Token::end) fail("the template ends inside a block");
  if (token.kind == Token::block_end || token.kind == Token::print_end) fail("a tag ends too early");
  fail(fmt::format("unexpected '{}'", token.value));
}

bool ExpressionParser::skip_op(std::string_view op) {
  bool found = peek().is_op(op);
  if (found) next();
  return found;
}
bool ExpressionParser::skip_name(std::string_view name) {
  bool found = peek().is_name(name);
  if (found) next();
  return found;
}
void ExpressionParser::expect_op(std::string_view op) {
  if (!skip_op(op)) fail(fmt::format("expected '{}', got '{}'", op, peek().value));
}
std::string ExpressionParser::expect_name() {
  if (peek().kind != Token::name) fail(fmt::format("expected a name, got '{}'", peek().value));
  return next().value;
}

ExpressionPtr ExpressionParser::make(Expression::Kind kind, std::string text) const {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = peek().line;
  node->text = std::move(text);
  return node;
}

void ExpressionParser::adopt(Expression& parent, ExpressionPtr child, bool as_argument) const {
  if (child) parent.height = std::max(parent.height, child->height + 1);
  if (parent.height > kMaxHeight) fail("an expression has too many parts");
  (as_argument ? parent.arguments : parent.children).push_back(std::move(child));
}

ExpressionPtr ExpressionParser::parse_expression(bool with_conditional) {
  Depth depth(*this);
  return with_conditional ? parse_conditional() : parse_either();
}

ExpressionPtr ExpressionParser::parse_conditional() {
  ExpressionPtr node = parse_either();
  while (peek().is_name("if")) {
    ExpressionPtr choice = make(Expression::conditional);
    next();
    adopt(*choice, std::move(node));
    adopt(*choice, parse_either());
    adopt(*choice, skip_name("else") ? parse_expression() : nullptr);
    node = std::move(choice);
  }
  return node;
}

ExpressionPtr ExpressionParser::parse_either() {
  ExpressionPtr node = parse_both();
  while (peek().is_name("or")) {
    ExpressionPtr pair = make(Expression::either);
    next();
    adopt(*pair, std::move(node));
    adopt(*pair, parse_both());
    node = std::move(pair);
  }
  return node;
}

ExpressionPtr ExpressionParser::parse_both() {
  ExpressionPtr node = parse_negation();
  while (peek().is_name("and")) {
    ExpressionPtr pair = make(Expression::both);
    next();
    adopt(*pair, std::move(node));
    adopt(*pair, parse_negation());
    node = std::move(pair);
  }
  return node;
}

ExpressionPtr ExpressionParser::parse_negation() {
  if (!peek().is_name("not")) return parse_comparison();
  Depth depth(*this);
  ExpressionPtr node = make(Expression::negation);
  next();
  adopt(*node, parse_negation());
  return node;
}

// Reads an operator of comparison; "" when there is none.
std::string ExpressionParser::comparison_operator() {
  const Token& token = peek();
  if (token.kind == Token::op && one_of(token.value, {"==", "!=", "<", "<=", ">", ">="})) return next().value;
  if (skip_name("in")) return "in";
  if (!token.is_name("not") || !tokens_[at_ + 1].is_name("in")) return "";
  next();
  next();
  return "not in";
}

ExpressionPtr ExpressionParser::parse_comparison() {
  ExpressionPtr node = parse_sum(), chain = make(Expression::comparison);
  std::string op = comparison_operator();
  if (op.empty()) return node;
  adopt(*chain, std::move(node));
  for (; !op.empty(); op = comparison_operator()) {
    chain->names.push_back(op);
    adopt(*chain, parse_sum());
  }
  return chain;
}

ExpressionPtr ExpressionParser::parse_binary(Rule operand, std::initializer_list<std::string_view> operators) {
  ExpressionPtr node = (this->*operand)();
  while (peek().kind == Token::op && one_of(peek().value, operators)) {
    ExpressionPtr pair = make(Expression::binary, peek().value);
    next();
    adopt(*pair, std::move(node));
    adopt(*pair, (this->*operand)());
    node = std::move(pair);
  }
  return node;
}
ExpressionPtr ExpressionParser::parse_sum() {
  return parse_binary(&ExpressionParser::parse_concatenation, {"+", "-"});
}
ExpressionPtr ExpressionParser::parse_concatenation() {
  return parse_binary(&ExpressionParser::parse_product, {"~"});
}
ExpressionPtr ExpressionParser::parse_product() {
  return parse_binary(&ExpressionParser::parse_power, {"*", "/", "//", "%"});
}
ExpressionPtr ExpressionParser::parse_power() {
  ExpressionPtr node = parse_unary();
  while (peek().is_op("**")) {
    ExpressionPtr pair = make(Expression::binary, "**");
    next();
    adopt(*pair, std::move(node));
    adopt(*pair, parse_unary());
    node = std::move(pair);
  }
  return node;
}

ExpressionPtr ExpressionParser::parse_unary(bool with_filters) {
  Depth depth(*this);
  ExpressionPtr node;
  if (peek().is_op("-") || peek().is_op("+")) {
    node = make(peek().is_op("-") ? Expression::negative : Expression::positive);
    next();
    adopt(*node, parse_unary(false));
  } else {
    node = parse_primary();
  }
  node = parse_postfix(std::move(node));
  return with_filters ? parse_filters(std::move(node)) : std::move(node);
}

ExpressionPtr ExpressionParser::parse_primary() {
  const Token& token = peek();
  if (token.kind == Token::name) return parse_name();
  if (token.kind == Token::integer || token.kind == Token::real) return parse_number();
  if (token.kind == Token::string) {
    ExpressionPtr node = make(Expression::constant);
    std::string text;
    while (peek().kind == Token::string) text += next().value;
    node->value = Value(std::move(text));
    return node;
  }
  if (skip_op("(")) {
    ExpressionPtr node = parse_tuple(true, "", true);
    expect_op(")");
    return node;
  }
  if (token.is_op("[")) return parse_list();
  if (token.is_op("{")) return parse_dict();
  unexpected();
}

ExpressionPtr ExpressionParser::parse_name() {
  ExpressionPtr node = make(Expression::constant);
  std::string name = next().value;
  if (name == "true" || name == "True")
    node->value = Value(true);
  else if (name == "false" || name == "False")
    node->value = Value(false);
  else if (name != "none" && name != "None") {
    node->kind = Expression::name;
    if (is_refused_global(name)) fail(fmt::format("'{}' is not supported", name));
    node->text = std::move(name);
  }
  return node;
}

ExpressionPtr ExpressionParser::parse_number() {
  ExpressionPtr node = make(Expression::constant);
  const Token& token = next();
  const char *begin = token.value.data(), *end = begin + token.value.size();
  if (token.kind == Token::real) {
    double value = 0;
    std::from_chars(begin, end, value);
    node->value = Value(value);
    return node;
  }
  int64_t value = 0;
  if (std::from_chars(begin, end, value).ec != std::errc())
    throw TemplateError(fmt::format("line {}: the number {} is too large", token.line, token.value));
  node->value = Value(value);
  return node;
}

ExpressionPtr ExpressionParser::parse_list() {
  ExpressionPtr node = make(Expression::list);
  expect_op("[");
  while (!peek().is_op("]")) {
    if (!node->children.empty()) expect_op(",");
    if (peek().is_op("]")) break;
    adopt(*node, parse_expression());
  }
  expect_op("]");
  return node;
}

ExpressionPtr ExpressionParser::parse_dict() {
  ExpressionPtr node = make(Expression::dict);
  expect_op("{");
  while (!peek().is_op("}")) {
    if (!node->children.empty()) expect_op(",");
    if (peek().is_op("}")) break;
    adopt(*node, parse_expression());
    expect_op(":");
    adopt(*node, parse_expression());
  }
  expect_op("}");
  return node;
}

ExpressionPtr ExpressionParser::parse_tuple(bool with_conditional, std::string_view end_name,
                                            bool in_parentheses) {
  ExpressionPtr node = make(Expression::tuple);
  bool has_comma = false;
  auto at_end = [&] {
    const Token& token = peek();
    return token.kind == Token::block_end || token.kind == Token::print_end || token.is_op(")") ||
           (!end_name.empty() && token.is_name(end_name));
  };
  while (!at_end()) {
    adopt(*node, parse_expression(with_conditional));
    if (!skip_op(",")) break;
    has_comma = true;
  }
  if (node->children.empty() && !in_parentheses) unexpected();
  return has_comma || node->children.empty() ? std::move(node) : std::move(node->children[0]);
}

ExpressionPtr ExpressionParser::parse_postfix(ExpressionPtr node) {
  while (true) {
    if (peek().is_op(".") || peek().is_op("["))
      node = parse_subscript(std::move(node));
    else if (peek().is_op("("))
      node = parse_call(std::move(node));
    else
      return node;
  }
}

ExpressionPtr ExpressionParser::parse_call(ExpressionPtr node) {
  ExpressionPtr call = make(Expression::call);
  adopt(*call, std::move(node));
  parse_arguments(*call);
  return call;
}

ExpressionPtr ExpressionParser::parse_subscript(ExpressionPtr node) {
  if (!skip_op(".")) return parse_item(std::move(node));
  if (peek().kind == Token::integer) {
    ExpressionPtr item = make(Expression::item);
    adopt(*item, std::move(node));
    adopt(*item, parse_number());
    return item;
  }
  ExpressionPtr attribute = make(Expression::attribute);
  attribute->text = expect_name();
  adopt(*attribute, std::move(node));
  return attribute;
}

ExpressionPtr ExpressionParser::parse_item(ExpressionPtr node) {
  ExpressionPtr item = make(Expression::item);
  expect_op("[");
  adopt(*item, std::move(node));
  bool has_colon = false;
  adopt(*item, peek().is_op(":") ? nullptr : parse_expression());
  while (skip_op(":")) {
    has_colon = true;
    bool empty = peek().is_op(":") || peek().is_op("]");
    adopt(*item, empty ? nullptr : parse_expression());
  }
  if (peek().is_op(",")) fail("an index of several parts is not supported");
  if (item->children.size() > 4) fail("a slice has at most three parts");
  expect_op("]");
  if (!has_colon) return item;
  item->kind = Expression::slice;
  item->children.resize(4);
  return item;
}

void ExpressionParser::parse_arguments(Expression& into) {
  expect_op("(");
  bool first = true;
  while (!peek().is_op(")")) {
    if (!first) expect_op(",");
    first = false;
    if (peek().is_op(")")) break;
    if (peek().is_op("*") || peek().is_op("**")) fail("unpacking of arguments with '*' is not supported");
    bool named = peek().kind == Token::name && tokens_[at_ + 1].is_op("=");
    if (!named && !into.names.empty()) fail("a positional argument follows a named one");
    if (named) {
      into.names.push_back(next().value);
      next();
    }
    adopt(into, parse_expression(), true);
  }
  expect_op(")");
}

ExpressionPtr ExpressionParser::parse_filters(ExpressionPtr node, bool first_is_named) {
  while (true) {
    if (first_is_named || peek().is_op("|")) {
      if (!std::exchange(first_is_named, false)) next();
      ExpressionPtr filter = make(Expression::filter);
      filter->text = expect_name();
      if (!find_filter(filter->text)) fail(fmt::format("the filter '{}' is not supported", filter->text));
      adopt(*filter, std::move(node));
      if (peek().is_op("(")) parse_arguments(*filter);
      node = std::move(filter);
    } else if (peek().is_name("is")) {
      node = parse_test(std::move(node));
    } else if (peek().is_op("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExpressionPtr ExpressionParser::parse_test(ExpressionPtr node) {
  next();
  bool negated = skip_name("not");
  ExpressionPtr test = make(Expression::test);
  test->text = expect_name();
  if (!find_test(test->text)) fail(fmt::format("the test '{}' is not supported", test->text));
  adopt(*test, std::move(node));
  const Token& token = peek();
  bool begins_value = token.kind == Token::name || token.kind == Token::string ||
                      token.kind == Token::integer || token.kind == Token::real || token.is_op("[") ||
                      token.is_op("{");
  if (token.is_op("(")) {
    parse_arguments(*test);
  } else if (begins_value && !token.is_name("else") && !token.is_name("or") && !token.is_name("and")) {
    if (token.is_name("is")) fail("tests with 'is' cannot be chained");
    adopt(*test, parse_postfix(parse_primary()), true);
  }
  if (!negated) return test;
  ExpressionPtr negation = make(Expression::negation);
  adopt(*negation, std::move(test));
  return negation;
}

}  // namespace tessera::chat
