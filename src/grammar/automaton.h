// A set of texts as a deterministic automaton over characters: what a regular expression matches, texts of some
// lengths, given texts; and their intersections and complements. What would need too many states is an error,
// thrown as AutomatonError inside of this part only. Threads: immutable.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/char_set.h"

namespace tessera::grammar {

struct AutomatonError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Automaton {
 public:
  struct Edge {
    CharRange range;
    int to;
  };
  struct State {
    std::vector<Edge> edges;  // ascending, apart; a character of no edge is not taken
    bool accepts = false;
  };

  // The first state is the beginning.
  explicit Automaton(std::vector<State> states) : states_(std::move(states)) {}
  static Automaton of_lengths(int64_t least, int64_t most);  // in characters; most -1: any
  static Automaton of_texts(const std::vector<std::string>& texts);

  const std::vector<State>& states() const { return states_; }
  Automaton intersection(const Automaton& other) const;
  Automaton complement() const;
  // Without the states that lead to no end; then empty() tells whether there is any text.
  Automaton trimmed() const;
  bool empty() const;
  bool takes(std::string_view utf8) const;

 private:
  std::vector<State> states_;
};

constexpr size_t kMaxAutomatonStates = 20'000;

}  // namespace tessera::grammar
