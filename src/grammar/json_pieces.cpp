#include "grammar/json_pieces.h"

namespace tessera::grammar {

namespace {

constexpr int kMaxNumberDigits = 18, kMaxFraction = 15, kMaxExponent = 2, kMaxIndent = 20;

}  // namespace

JsonPieces::JsonPieces(Grammar& grammar)
    : g_(grammar),
      character_(g_.new_rule()),
      text_(g_.new_rule()),
      number_(g_.new_rule()),
      integer_(g_.new_rule()),
      value_(g_.new_rule()),
      object_(g_.new_rule()),
      space_(g_.new_rule()) {
  auto end_of_rule = [&] {
    int end = g_.new_state();
    g_.accept(end);
    return end;
  };
  write_character();
  write_space();
  g_.accept(write_string(g_.begin(text_)));
  g_.accept(write_integer(g_.begin(integer_), kMaxNumberDigits));
  int whole = write_integer(g_.begin(number_), kMaxNumberDigits), fraction = g_.new_state(),
      end = end_of_rule();
  g_.skip(whole, fraction);
  g_.skip(write_digits(g_.literal(whole, "."), kMaxFraction), fraction);
  g_.skip(fraction, end);
  int exponent = g_.new_state(), digits = g_.new_state();
  for (char e : {'e', 'E'})
    g_.edge(fraction, static_cast<unsigned char>(e), static_cast<unsigned char>(e), exponent);
  for (char sign : {'+', '-'})
    g_.edge(exponent, static_cast<unsigned char>(sign), static_cast<unsigned char>(sign), digits);
  g_.skip(exponent, digits);
  g_.skip(write_digits(digits, kMaxExponent), end);

  int from = g_.begin(value_), done = end_of_rule();
  for (const char* name : {"true", "false", "null"}) g_.skip(g_.literal(from, name), done);
  g_.call(from, number_, done);
  g_.call(from, object_, done);
  g_.call(from, text_, done);
  write_array(from, done);
  write_object(g_.begin(object_), end_of_rule(), value_);
}

int JsonPieces::spaced(int from) {
  int to = g_.new_state();
  g_.call(from, space_, to);
  return to;
}

// Nothing, one blank, or a line end and the indentation of the next line.
void JsonPieces::write_space() {
  int from = g_.begin(space_), at = g_.literal(from, "\n");
  g_.accept(from);
  g_.accept(g_.literal(from, " "));
  for (int i = 0; i < kMaxIndent; ++i) {
    g_.accept(at);
    at = g_.literal(at, " ");
  }
  g_.accept(at);
}

void JsonPieces::write_character() {
  int from = g_.begin(character_), end = g_.new_state();
  g_.accept(end);
  write_utf8(from, end);
  write_escapes(from, end);
}

// Well-formed UTF-8 (Unicode, table 3-7) but for controls, '"' and '\'.
void JsonPieces::write_utf8(int from, int to) {
  int last = g_.new_state(), last_two = g_.new_state(), last_three = g_.new_state();
  g_.edge(last, 0x80, 0xBF, to);
  g_.edge(last_two, 0x80, 0xBF, last);
  g_.edge(last_three, 0x80, 0xBF, last_two);
  auto second = [&](unsigned char lead, unsigned char first, unsigned char end, int next) {
    int at = g_.new_state();
    g_.edge(from, lead, lead, at);
    g_.edge(at, first, end, next);
  };
  g_.edge(from, 0x20, 0x21, to);
  g_.edge(from, 0x23, 0x5B, to);
  g_.edge(from, 0x5D, 0x7F, to);
  g_.edge(from, 0xC2, 0xDF, last);
  second(0xE0, 0xA0, 0xBF, last);
  g_.edge(from, 0xE1, 0xEC, last_two);
  second(0xED, 0x80, 0x9F, last);
  g_.edge(from, 0xEE, 0xEF, last_two);
  second(0xF0, 0x90, 0xBF, last_two);
  g_.edge(from, 0xF1, 0xF3, last_three);
  second(0xF4, 0x80, 0x8F, last_two);
}

void JsonPieces::write_escapes(int from, int to) {
  auto hex = [&](int at, int next) {
    g_.edge(at, '0', '9', next);
    g_.edge(at, 'a', 'f', next);
    g_.edge(at, 'A', 'F', next);
  };
  int escape = g_.literal(from, "\\"), code = g_.literal(escape, "u");
  for (char c : {'"', '\\', '/', 'b', 'f', 'n', 'r', 't'})
    g_.edge(escape, static_cast<unsigned char>(c), static_cast<unsigned char>(c), to);
  int second = g_.new_state(), second_of_d = g_.new_state(), third = g_.new_state(), fourth = g_.new_state();
  // \uD800 to \uDFFF are halves of pairs, not characters.
  g_.edge(code, '0', '9', second);
  for (char c : {'a', 'b', 'c', 'e', 'f', 'A', 'B', 'C', 'E', 'F'})
    g_.edge(code, static_cast<unsigned char>(c), static_cast<unsigned char>(c), second);
  for (char c : {'d', 'D'})
    g_.edge(code, static_cast<unsigned char>(c), static_cast<unsigned char>(c), second_of_d);
  hex(second, third);
  g_.edge(second_of_d, '0', '7', third);
  hex(third, fourth);
  hex(fourth, to);
}

// One digit or more; returns the state behind them.
int JsonPieces::write_digits(int from, int most) {
  int end = g_.new_state();
  for (int i = 0; i < most; ++i) {
    int next = g_.new_state();
    g_.edge(from, '0', '9', next);
    g_.skip(next, end);
    from = next;
  }
  return end;
}

int JsonPieces::write_integer(int from, int most) {
  int end = g_.new_state(), sign = g_.literal(from, "-"), first = g_.new_state();
  g_.skip(from, sign);
  g_.skip(g_.literal(sign, "0"), end);
  g_.edge(sign, '1', '9', first);
  g_.skip(first, end);
  g_.skip(write_digits(first, most - 1), end);
  return end;
}

int JsonPieces::write_string(int from) {
  int inside = g_.literal(from, "\"");
  g_.call(inside, character_, inside);
  return g_.literal(inside, "\"");
}

void JsonPieces::write_object(int from, int to, int value) {
  int open = spaced(g_.literal(from, "{")), next = g_.new_state(), after = g_.new_state();
  g_.skip(g_.literal(open, "}"), to);
  g_.skip(open, next);
  g_.call(spaced(g_.literal(write_string(next), ":")), value, after);
  g_.skip(spaced(g_.literal(after, ",")), next);
  g_.skip(g_.literal(spaced(after), "}"), to);
}

void JsonPieces::write_array(int from, int to) {
  int open = spaced(g_.literal(from, "[")), after = g_.new_state(), next = g_.new_state();
  g_.skip(g_.literal(open, "]"), to);
  g_.skip(open, next);
  g_.call(next, value_, after);
  g_.skip(spaced(g_.literal(after, ",")), next);
  g_.skip(g_.literal(spaced(after), "]"), to);
}

}  // namespace tessera::grammar
