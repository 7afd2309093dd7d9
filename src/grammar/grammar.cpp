#include "grammar/grammar.h"

#include <algorithm>
#include <functional>
#include <queue>

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

// Knuth's generalisation of Dijkstra's algorithm to grammars (1977): a state is done once no shorter way can
// come, and what a call costs is known when its rule and the state behind it are.
void Grammar::find_distances() {
  struct Way {
    int from, other;  // `other`: the call's second state; -1: an edge or a skip
    int64_t cost;
  };
  std::vector<std::vector<Way>> ways_to(states_.size());
  auto to = [&](int target) -> std::vector<Way>& { return ways_to[static_cast<size_t>(target)]; };
  using Entry = std::pair<int64_t, int>;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> next;
  auto reach = [&](int at, int64_t distance) {
    State& reached = states_[static_cast<size_t>(at)];
    if (distance >= reached.distance) return;
    reached.distance = distance;
    next.emplace(distance, at);
  };
  for (int from = 0; from < static_cast<int>(states_.size()); ++from) {
    for (const Edge& edge : state(from).edges) to(edge.to).push_back({from, -1, 1});
    for (int target : state(from).skips) to(target).push_back({from, -1, 0});
    for (const Call& call : state(from).calls) {
      to(call.to).push_back({from, begin(call.rule), 0});
      to(begin(call.rule)).push_back({from, call.to, 0});
    }
    if (state(from).accepts) reach(from, 0);
  }
  while (!next.empty()) {
    auto [distance, at] = next.top();
    next.pop();
    if (distance > state(at).distance) continue;
    for (const Way& way : to(at)) {
      int64_t cost = way.other < 0 ? way.cost : state(way.other).distance;
      reach(way.from, std::min(kNever, distance + cost));
    }
  }
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
  find_distances();
  if (state(start()).distance >= kNever) return invalid("no text satisfies it");
  if (recurses_without_reading()) return invalid("it refers to itself without anything in between");
  return {};
}

}  // namespace tessera::grammar
