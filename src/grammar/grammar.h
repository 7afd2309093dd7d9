// Which byte may come next in a text that must be JSON of a schema, or one of some choices. A grammar is rules
// that are small automata over bytes; an edge reads a byte or calls a rule, so that nested values need no end
// of depth.
//
//   Grammar grammar;
//   int end = grammar.literal(grammar.begin(rule), "yes");
//   grammar.accept(end);
//
// Every rule reads at least one byte before it calls itself again; finish() checks it.
// Threads: immutable after finish().
#pragma once

#include <cstdint>
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

#include "core/result.h"

namespace tessera::grammar {

class Grammar {
 public:
  static constexpr int64_t kNever = std::numeric_limits<int32_t>::max();

  int new_rule();
  int begin(int rule) const { return rules_[static_cast<size_t>(rule)]; }
  void accept(int state) { states_[static_cast<size_t>(state)].accepts = true; }

  int new_state();
  void edge(int from, unsigned char first, unsigned char last, int to);
  void call(int from, int rule, int to);
  void skip(int from, int to);  // without reading
  // From `from` over the bytes of `text`; returns the state behind them.
  int literal(int from, std::string_view text);

  // Errors: too many states, a rule that calls itself without reading, a start rule that nothing satisfies.
  Status finish(int start_rule);

  struct Edge {
    unsigned char first, last;
    int to;
  };
  struct Call {
    int rule, to;
  };
  struct State {
    std::vector<Edge> edges = {};
    std::vector<Call> calls = {};
    std::vector<int> skips = {};
    bool accepts = false;
    int64_t distance = kNever;  // fewest bytes to the end of the rule
  };
  const State& state(int index) const { return states_[static_cast<size_t>(index)]; }
  int start() const { return begin(start_rule_); }

 private:
  void find_distances();
  bool recurses_without_reading() const;
  std::vector<State> states_;
  std::vector<int> rules_;
  int start_rule_ = 0;
};

}  // namespace tessera::grammar
