#include "grammar/regex.h"

#include <algorithm>
#include <map>

#include "grammar/regex_syntax.h"

namespace tessera::grammar {

namespace {

constexpr size_t kMaxNfaStates = 50'000, kMaxRegexBytes = 20'000;
constexpr int64_t kMaxWork = 50'000'000;

// Thompson's automaton. Edges without a character are free, or may be passed only in front of the first
// character or behind the last one.
struct Nfa {
  struct State {
    std::vector<std::pair<size_t, int>> edges = {};  // set, to
    std::vector<int> free = {}, at_begin = {}, at_end = {};
  };
  std::vector<State> states;
  std::vector<CharSet> sets;
  int accept = 0;

  int add() {
    if (states.size() >= kMaxNfaStates) throw AutomatonError("the regular expression is too large");
    states.emplace_back();
    return static_cast<int>(states.size()) - 1;
  }
  State& at(int i) { return states[static_cast<size_t>(i)]; }
  void edge(int from, const CharSet& set, int to) {
    auto found = std::find(sets.begin(), sets.end(), set);
    size_t index = static_cast<size_t>(found - sets.begin());
    if (found == sets.end()) sets.push_back(set);
    at(from).edges.emplace_back(index, to);
  }

  int write(const RegexNode& node, int from) {
    switch (node.kind) {
      case RegexNode::characters: {
        int to = add();
        edge(from, node.set, to);
        return to;
      }
      case RegexNode::sequence:
        for (const RegexNode& part : node.parts) from = write(part, from);
        return from;
      case RegexNode::alternatives: {
        int to = add();
        for (const RegexNode& part : node.parts) {
          int begin = add();
          at(from).free.push_back(begin);
          int end = write(part, begin);
          at(end).free.push_back(to);
        }
        return to;
      }
      case RegexNode::repeat:
        return write_repeat(node, from);
      case RegexNode::begin: {
        int to = add();
        at(from).at_begin.push_back(to);
        return to;
      }
      case RegexNode::end: {
        int to = add();
        at(from).at_end.push_back(to);
        return to;
      }
    }
    return from;
  }

  int write_repeat(const RegexNode& node, int from) {
    const RegexNode& part = node.parts[0];
    for (int64_t i = 0; i < node.least; ++i) from = write(part, from);
    int to = add();
    if (node.most < 0) {
      int loop = add();
      at(from).free.push_back(loop);
      int end = write(part, loop);
      at(end).free.push_back(loop);
      at(loop).free.push_back(to);
      return to;
    }
    at(from).free.push_back(to);
    for (int64_t i = node.least; i < node.most; ++i) {
      from = write(part, from);
      at(from).free.push_back(to);
    }
    return to;
  }
};

// The subset construction.
class Determinizer {
 public:
  explicit Determinizer(Nfa nfa) : nfa_(std::move(nfa)) { cut_alphabet(); }

  Automaton run(int start) {
    sets_.push_back(closure({start}, true, false));
    std::vector<Automaton::State> out;
    for (size_t i = 0; i < sets_.size(); ++i) {
      auto set = sets_[i];
      Automaton::State made;
      auto at_end = closure(set, i == 0, true);
      made.accepts = std::binary_search(at_end.begin(), at_end.end(), nfa_.accept);
      for (size_t atom = 0; atom < atoms_.size(); ++atom) {
        std::vector<int> next = step(set, atom);
        if (next.empty()) continue;
        int to = id_of(closure(std::move(next), false, false));
        auto& edges = made.edges;
        bool goes_on =
            !edges.empty() && edges.back().to == to && edges.back().range.last + 1 == atoms_[atom].first;
        if (goes_on)
          edges.back().range.last = atoms_[atom].last;
        else
          edges.push_back({atoms_[atom], to});
      }
      out.push_back(std::move(made));
    }
    return Automaton(std::move(out)).trimmed();
  }

 private:
  // Characters that no set tells apart.
  void cut_alphabet() {
    std::vector<uint32_t> begins;
    for (const CharSet& set : nfa_.sets)
      for (CharRange range : set.ranges()) begins.push_back(range.first), begins.push_back(range.last + 1);
    std::sort(begins.begin(), begins.end());
    begins.erase(std::unique(begins.begin(), begins.end()), begins.end());
    for (size_t i = 0; i + 1 < begins.size(); ++i) {
      CharRange atom{begins[i], begins[i + 1] - 1};
      std::vector<bool> in;
      for (const CharSet& set : nfa_.sets) in.push_back(set.contains(atom.first));
      if (std::none_of(in.begin(), in.end(), [](bool b) { return b; })) continue;
      atoms_.push_back(atom);
      in_set_.push_back(std::move(in));
    }
  }

  std::vector<int> step(const std::vector<int>& from, size_t atom) {
    std::vector<int> out;
    for (int state : from)
      for (auto [set, to] : nfa_.at(state).edges)
        if (in_set_[atom][set]) out.push_back(to);
    count_work(from.size() + out.size());
    return out;
  }

  std::vector<int> closure(std::vector<int> states, bool at_begin, bool at_end) {
    std::vector<int> out;
    if (seen_.empty()) seen_.resize(nfa_.states.size(), false);
    while (!states.empty()) {
      int at = states.back();
      states.pop_back();
      if (seen_[static_cast<size_t>(at)]) continue;
      seen_[static_cast<size_t>(at)] = true;
      out.push_back(at);
      const Nfa::State& state = nfa_.at(at);
      states.insert(states.end(), state.free.begin(), state.free.end());
      if (at_begin) states.insert(states.end(), state.at_begin.begin(), state.at_begin.end());
      if (at_end) states.insert(states.end(), state.at_end.begin(), state.at_end.end());
    }
    for (int at : out) seen_[static_cast<size_t>(at)] = false;
    count_work(out.size());
    std::sort(out.begin(), out.end());
    return out;
  }

  // The first state is that of the beginning and is not met again.
  int id_of(std::vector<int> set) {
    auto [found, is_new] = ids_.emplace(std::move(set), static_cast<int>(sets_.size()));
    if (is_new) sets_.push_back(found->first);
    if (sets_.size() > kMaxAutomatonStates)
      throw AutomatonError("the regular expression needs too many states");
    return found->second;
  }

  void count_work(size_t steps) {
    work_ += static_cast<int64_t>(steps) + 1;
    if (work_ > kMaxWork) throw AutomatonError("the regular expression takes too long to read");
  }

  Nfa nfa_;
  std::vector<CharRange> atoms_;
  std::vector<std::vector<bool>> in_set_;  // [atom][set]
  std::vector<std::vector<int>> sets_;
  std::map<std::vector<int>, int> ids_;
  std::vector<bool> seen_;
  int64_t work_ = 0;
};

}  // namespace

Result<Automaton> automaton_of_regex(std::string_view regex, RegexMatch match, RegexReading reading) {
  if (regex.size() > kMaxRegexBytes)
    return invalid("the regular expression has {} bytes, more than {}", regex.size(), kMaxRegexBytes);
  try {
    RegexNode tree = parse_regex(regex, reading);
    Nfa nfa;
    int start = nfa.add();
    if (match == RegexMatch::anywhere) nfa.edge(start, CharSet::all(), start);
    int begin = nfa.add();
    nfa.at(start).free.push_back(begin);
    nfa.accept = nfa.write(tree, begin);
    if (match == RegexMatch::anywhere) nfa.edge(nfa.accept, CharSet::all(), nfa.accept);
    return Determinizer(std::move(nfa)).run(start);
  } catch (const AutomatonError& error) {
    return invalid("{}", error.what());
  }
}

}  // namespace tessera::grammar
