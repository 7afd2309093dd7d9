// The parts of JSON that every schema needs, each written once into a grammar.
#pragma once

#include "grammar/grammar.h"

namespace tessera::grammar {

class JsonPieces {
 public:
  explicit JsonPieces(Grammar& grammar);

  // Rules.
  int character() const { return character_; }  // one code point inside a string, escaped or not
  int text() const { return text_; }            // a string
  int number() const { return number_; }
  int integer() const { return integer_; }
  int value() const { return value_; }
  int object() const { return object_; }

  // The state behind short white space, which may be absent.
  int spaced(int from);
  // An object of any keys whose values are of the rule `value`.
  void write_object(int from, int to, int value);

 private:
  void write_character();
  void write_utf8(int from, int to);
  void write_escapes(int from, int to);
  int write_digits(int from, int most);
  int write_integer(int from, int most);
  int write_string(int from);
  void write_space();
  void write_array(int from, int to);

  Grammar& g_;
  int character_, text_, number_, integer_, value_, object_, space_;
};

}  // namespace tessera::grammar
