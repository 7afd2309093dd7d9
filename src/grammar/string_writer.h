// Writes characters and automata over them into a grammar, as bytes of UTF-8: as they are, or as they stand
// inside of JSON's strings. Threads: one at a time.
#pragma once

#include <map>

#include "grammar/automaton.h"
#include "grammar/grammar.h"

namespace tessera::grammar {

class StringWriter {
 public:
  enum Form { plain, json };  // json: quotes, backslashes and controls are escaped
  StringWriter(Grammar& grammar, Form form) : g_(grammar), form_(form) {}

  // Texts of the automaton between the two states.
  void write(int from, int to, const Automaton& automaton);

 private:
  int rule_of(const CharSet& set);
  void write_plain(int from, int to, CharRange range);
  void write_escaped(int from, int to, uint32_t character);

  Grammar& g_;
  Form form_;
  std::map<CharSet, int> rules_;
};

}  // namespace tessera::grammar
