#include "grammar/automaton.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>

#include "chat/characters.h"

namespace tessera::grammar {

namespace {

void check_size(size_t states) {
  if (states > kMaxAutomatonStates)
    throw AutomatonError(fmt::format("it needs more than {} states; make it simpler", kMaxAutomatonStates));
}

}  // namespace

Automaton Automaton::of_lengths(int64_t least, int64_t most) {
  int64_t last = most < 0 ? least : most;
  check_size(static_cast<size_t>(last));
  std::vector<State> states(static_cast<size_t>(last + 1));
  for (int64_t i = 0; i <= last; ++i) {
    State& at = states[static_cast<size_t>(i)];
    at.accepts = i >= least;
    bool repeats = most < 0 && i == last;
    if (i < last || repeats)
      for (CharRange range : CharSet::all().ranges())
        at.edges.push_back({range, static_cast<int>(repeats ? i : i + 1)});
  }
  return Automaton(std::move(states));
}

Automaton Automaton::of_texts(const std::vector<std::string>& texts) {
  std::vector<State> states(1);
  for (const std::string& text : texts) {
    size_t at = 0;
    for (uint32_t c : chat::decode(text)) {
      auto& edges = states[at].edges;
      auto place = std::lower_bound(edges.begin(), edges.end(), c,
                                    [](const Edge& edge, uint32_t value) { return edge.range.first < value; });
      if (place == edges.end() || place->range.first != c) {
        check_size(states.size() + 1);
        place = edges.insert(place, {{c, c}, static_cast<int>(states.size())});
        at = states.size();
        states.emplace_back();
      } else {
        at = static_cast<size_t>(place->to);
      }
    }
    states[at].accepts = true;
  }
  return Automaton(std::move(states));
}

Automaton Automaton::intersection(const Automaton& other) const {
  std::map<std::pair<int, int>, int> ids = {{{0, 0}, 0}};
  std::vector<std::pair<int, int>> pairs = {{0, 0}};
  std::vector<State> out;
  auto id_of = [&](int a, int b) {
    auto [found, is_new] = ids.emplace(std::pair(a, b), static_cast<int>(pairs.size()));
    if (is_new) pairs.emplace_back(a, b);
    check_size(pairs.size());
    return found->second;
  };
  for (size_t i = 0; i < pairs.size(); ++i) {
    const State& a = states_[static_cast<size_t>(pairs[i].first)];
    const State& b = other.states_[static_cast<size_t>(pairs[i].second)];
    State made{.edges = {}, .accepts = a.accepts && b.accepts};
    for (size_t x = 0, y = 0; x < a.edges.size() && y < b.edges.size();) {
      CharRange p = a.edges[x].range, q = b.edges[y].range;
      CharRange both{std::max(p.first, q.first), std::min(p.last, q.last)};
      if (both.first <= both.last) made.edges.push_back({both, id_of(a.edges[x].to, b.edges[y].to)});
      p.last < q.last ? ++x : ++y;
    }
    out.push_back(std::move(made));
  }
  return Automaton(std::move(out)).trimmed();
}

Automaton Automaton::complement() const {
  std::vector<State> out = states_;
  int sink = static_cast<int>(out.size());
  out.emplace_back();
  for (State& state : out) {
    state.accepts = !state.accepts;
    CharSet taken;
    for (const Edge& edge : state.edges) taken.add(edge.range);
    CharSet left = taken.complement();
    for (CharRange range : left.ranges()) state.edges.push_back({range, sink});
    std::sort(state.edges.begin(), state.edges.end(),
              [](const Edge& a, const Edge& b) { return a.range < b.range; });
  }
  return Automaton(std::move(out)).trimmed();
}

Automaton Automaton::trimmed() const {
  std::vector<std::vector<int>> from(states_.size());
  for (size_t i = 0; i < states_.size(); ++i)
    for (const Edge& edge : states_[i].edges) from[static_cast<size_t>(edge.to)].push_back(static_cast<int>(i));
  std::vector<bool> useful(states_.size(), false);
  std::vector<int> left;
  for (size_t i = 0; i < states_.size(); ++i)
    if (states_[i].accepts) useful[i] = true, left.push_back(static_cast<int>(i));
  while (!left.empty()) {
    int at = left.back();
    left.pop_back();
    for (int before : from[static_cast<size_t>(at)])
      if (!useful[static_cast<size_t>(before)])
        useful[static_cast<size_t>(before)] = true, left.push_back(before);
  }
  std::vector<int> place(states_.size(), -1);
  int next = 0;
  for (size_t i = 0; i < states_.size(); ++i)
    if (useful[i] || i == 0) place[i] = next++;
  std::vector<State> out;
  for (size_t i = 0; i < states_.size(); ++i) {
    if (place[i] < 0) continue;
    State kept{.edges = {}, .accepts = states_[i].accepts};
    for (const Edge& edge : states_[i].edges)
      if (useful[static_cast<size_t>(edge.to)])
        kept.edges.push_back({edge.range, place[static_cast<size_t>(edge.to)]});
    out.push_back(std::move(kept));
  }
  return Automaton(std::move(out));
}

bool Automaton::empty() const {
  return std::none_of(states_.begin(), states_.end(), [](const State& state) { return state.accepts; });
}

bool Automaton::takes(std::string_view utf8) const {
  int at = 0;
  for (uint32_t c : chat::decode(utf8)) {
    const auto& edges = states_[static_cast<size_t>(at)].edges;
    auto edge = std::find_if(edges.begin(), edges.end(),
                             [&](const Edge& e) { return e.range.first <= c && c <= e.range.last; });
    if (edge == edges.end()) return false;
    at = edge->to;
  }
  return states_[static_cast<size_t>(at)].accepts;
}

}  // namespace tessera::grammar
