#include "grammar/grammar.h"

#include <algorithm>

namespace tessera::grammar {

namespace {

constexpr size_t kMaxStates = 200'000;

}  // namespace

int Grammar::new_state() {
  // finish() refuses it; until then it grows no more.
  if (states_.size() > kMaxStates) return static_cast<int>(kMaxStates);
  states_.emplace_back();
  return static_cast<int>(states_.size()) - 1;
}

int Grammar::new_rule() {
  rules_.push_back(new_state());
  return static_cast<int>(rules_.size()) - 1;
}

void Grammar::edge(int from, unsigned char first, unsigned char last, int to) {
  states_[static_cast<size_t>(from)].edges.push_back({first, last, to});
}
void Grammar::call(int from, int rule, int to) {
  states_[static_cast<size_t>(from)].calls.push_back({rule, to});
}
void Grammar::skip(int from, int to) {
  states_[static_cast<size_t>(from)].skips.push_back(to);
}

int Grammar::literal(int from, std::string_view text) {
  for (char c : text) {
    int next = new_state();
    edge(from, static_cast<unsigned char>(c), static_cast<unsigned char>(c), next);
    from = next;
  }
  return from;
}

// One round of Bellman and Ford, backwards, for states are mostly made in the order they are passed.
bool Grammar::improve_distances() {
  bool changed = false;
  for (size_t i = states_.size(); i-- > 0;) {
    State& at = states_[i];
    int64_t best = at.accepts ? 0 : at.distance;
    auto over = [&](int64_t cost, int to) {
      int64_t rest = state(to).distance;
      if (cost < kNever && rest < kNever) best = std::min(best, cost + rest);
    };
    for (const Edge& edge : at.edges) over(1, edge.to);
    for (const Call& call : at.calls) over(state(begin(call.rule)).distance, call.to);
    for (int to : at.skips) over(0, to);
    changed |= best < at.distance;
    at.distance = best;
  }
  return changed;
}

// Kahn's algorithm over "enters without reading": what is left lies on a cycle.
bool Grammar::recurses_without_reading() const {
  std::vector<int> entered(states_.size(), 0);
  auto each = [&](size_t i, const auto& visit) {
    for (int to : states_[i].skips) visit(to);
    for (const Call& call : states_[i].calls) {
      visit(begin(call.rule));
      if (state(begin(call.rule)).distance == 0) visit(call.to);
    }
  };
  for (size_t i = 0; i < states_.size(); ++i) each(i, [&](int to) { ++entered[static_cast<size_t>(to)]; });
  std::vector<size_t> free;
  for (size_t i = 0; i < states_.size(); ++i)
    if (entered[i] == 0) free.push_back(i);
  size_t done = 0;
  while (!free.empty()) {
    size_t i = free.back();
    free.pop_back();
    ++done;
    each(i, [&](int to) {
      if (--entered[static_cast<size_t>(to)] == 0) free.push_back(static_cast<size_t>(to));
    });
  }
  return done < states_.size();
}

Status Grammar::finish(int start_rule) {
  start_rule_ = start_rule;
  if (states_.size() > kMaxStates)
    return invalid("it is too large; it may have {} states, about one for each character", kMaxStates);
  while (improve_distances()) {
  }
  if (state(start()).distance >= kNever) return invalid("no text satisfies it");
  if (recurses_without_reading()) return invalid("it refers to itself without anything in between");
  return {};
}

}  // namespace tessera::grammar
