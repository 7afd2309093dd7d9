// Follows a text through a grammar, byte by byte. Where the text may stand (several places at once, each with
// the rules that called it) is a configuration; configurations and their steps are kept, so that texts that
// pass the same places cost one look-up a byte. Threads: one at a time.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "grammar/grammar.h"

namespace tessera::grammar {

class Matcher {
 public:
  static constexpr int kDead = -1;
  // Rules inside of each other; what would go deeper is not taken. JSON of that depth is read by few parsers.
  static constexpr int kMaxNesting = 256;

  explicit Matcher(std::shared_ptr<const Grammar> grammar);

  int start() const { return start_; }
  // The configuration after one more byte, or kDead.
  int step(int configuration, unsigned char byte);
  bool accepts(int configuration) const { return at(configuration).accepts; }
  // Fewest bytes to the end of the text.
  int64_t distance(int configuration) const { return at(configuration).distance; }

 private:
  struct Place {  // a state, and the place to go on at when its rule ends; -1: the text's end
    int state, next;
    auto operator<=>(const Place&) const = default;
  };
  struct Configuration {
    std::vector<int> places;  // that read bytes
    bool accepts = false;
    int64_t distance = Grammar::kNever;
    std::unique_ptr<std::array<int, 256>> steps = {};
  };
  static constexpr int kUnknown = -2;

  const Configuration& at(int i) const { return configurations_[static_cast<size_t>(i)]; }
  int place_of(Place place);
  void close(int place, Configuration& into);
  int configuration_of(const std::vector<int>& entered);
  int compute_step(int configuration, unsigned char byte);

  std::shared_ptr<const Grammar> grammar_;
  std::vector<Place> places_;
  std::vector<int64_t> place_distance_;
  std::vector<int> place_depth_;
  std::vector<int64_t> seen_in_;  // the closure in which each place was entered last
  int64_t closure_ = 0;
  std::map<Place, int> place_ids_;
  std::vector<Configuration> configurations_;
  std::map<std::pair<std::vector<int>, bool>, int> configuration_ids_;
  int start_ = kDead;
};

}  // namespace tessera::grammar
