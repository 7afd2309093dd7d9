#include "grammar/matcher.h"

#include <algorithm>

namespace tessera::grammar {

Matcher::Matcher(std::shared_ptr<const Grammar> grammar) : grammar_(std::move(grammar)) {
  start_ = configuration_of({place_of({grammar_->start(), -1})});
}

int Matcher::place_of(Place place) {
  auto [found, is_new] = place_ids_.emplace(place, static_cast<int>(places_.size()));
  if (!is_new) return found->second;
  places_.push_back(place);
  int64_t own = grammar_->state(place.state).distance,
          rest = place.next < 0 ? 0 : place_distance_[static_cast<size_t>(place.next)];
  place_distance_.push_back(std::min(Grammar::kNever, own + rest));
  seen_in_.push_back(0);
  place_depth_.push_back(place.next < 0 ? 0 : place_depth_[static_cast<size_t>(place.next)] + 1);
  return found->second;
}

// Adds what can be reached from `first` without reading. An object of thousands of optional properties is a
// chain of as many places, so they wait in a list and not on the stack.
void Matcher::close(int first, Configuration& into) {
  std::vector<int> waiting;
  auto enter = [&](int place) {
    if (std::exchange(seen_in_[static_cast<size_t>(place)], closure_) != closure_) waiting.push_back(place);
  };
  enter(first);
  while (!waiting.empty()) {
    int place = waiting.back();
    waiting.pop_back();
    Place at = places_[static_cast<size_t>(place)];
    const Grammar::State& state = grammar_->state(at.state);
    if (state.distance >= Grammar::kNever) continue;
    into.distance = std::min(into.distance, place_distance_[static_cast<size_t>(place)]);
    if (!state.edges.empty()) into.places.push_back(place);
    if (state.accepts && at.next < 0) into.accepts = true;
    if (state.accepts && at.next >= 0) enter(at.next);
    for (int to : state.skips) enter(place_of({to, at.next}));
    if (place_depth_[static_cast<size_t>(place)] >= kMaxNesting) continue;
    for (const Grammar::Call& call : state.calls) {
      // A call in the last place of its rule needs no way back of its own.
      const Grammar::State& after = grammar_->state(call.to);
      bool is_last = after.accepts && after.edges.empty() && after.calls.empty() && after.skips.empty();
      int next = is_last ? at.next : place_of({call.to, at.next});
      enter(place_of({grammar_->begin(call.rule), next}));
    }
  }
}

int Matcher::configuration_of(const std::vector<int>& entered) {
  Configuration made;
  ++closure_;
  for (int place : entered) close(place, made);
  if (made.places.empty() && !made.accepts) return kDead;
  std::sort(made.places.begin(), made.places.end());
  auto [found, is_new] = configuration_ids_.emplace(std::pair(made.places, made.accepts),
                                                    static_cast<int>(configurations_.size()));
  if (is_new) configurations_.push_back(std::move(made));
  return found->second;
}

int Matcher::compute_step(int configuration, unsigned char byte) {
  std::vector<int> entered;
  for (int place : at(configuration).places) {
    Place from = places_[static_cast<size_t>(place)];
    for (const Grammar::Edge& edge : grammar_->state(from.state).edges)
      if (edge.first <= byte && byte <= edge.last) entered.push_back(place_of({edge.to, from.next}));
  }
  return entered.empty() ? kDead : configuration_of(entered);
}

int Matcher::step(int configuration, unsigned char byte) {
  auto& steps = configurations_[static_cast<size_t>(configuration)].steps;
  if (!steps) {
    steps = std::make_unique<std::array<int, 256>>();
    steps->fill(kUnknown);
  }
  int known = (*steps)[byte];
  if (known != kUnknown) return known;
  int next = compute_step(configuration, byte);
  // `steps` may have moved: configurations were added.
  (*configurations_[static_cast<size_t>(configuration)].steps)[byte] = next;
  return next;
}

}  // namespace tessera::grammar
