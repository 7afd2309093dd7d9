#include <algorithm>
#include <deque>

#include "schedule/tables.h"

namespace tessera::tables {
namespace {

// Chunk 0 goes down the stages with the first half of the slots, chunk 1 up with the second. Seen from the end
// that is nearer, `near` enters here first.
class Directions {
 public:
  Directions(bool lower_half, int64_t slots) : near_(lower_half ? 1 : 0), half_(slots / 2) {}
  int64_t chunk(bool near) const { return near ? near_ : 1 - near_; }

  void forward(bool near, bool paired = false) { push(Action::forward, near, forwards_[near]++, paired); }
  void backward(bool near, bool paired = false) { push(Action::backward, near, backwards_[near]++, paired); }
  void backward_apart(bool near) {
    waiting_.emplace_back(near, backwards_[near]);
    push(Action::backward_input, near, backwards_[near]++, false);
  }
  void weight() {
    auto [near, slot] = waiting_.front();
    waiting_.pop_front();
    push(Action::backward_weight, near, slot, false);
  }
  void pair(bool near_forward) { forward(near_forward, true), backward(!near_forward, true); }
  Row row;

 private:
  void push(Action::Kind kind, bool near, int64_t index, bool paired) {
    int64_t which = chunk(near);
    row.push_back({.kind = kind, .slot = which * half_ + index, .chunk = which, .paired = paired});
  }
  int64_t near_, half_;
  int64_t forwards_[2] = {}, backwards_[2] = {};
  std::deque<std::pair<bool, int64_t>> waiting_;  // weight gradients put off
};

}  // namespace

// The eight phases of figure 5 of the DeepSeek-V3 report. `inside`: stages between this one and the nearer end.
Row dualpipe(int64_t stage, int64_t stages, int64_t slots) {
  int64_t inside = std::min(stage, stages - 1 - stage), outside = stages / 2 - 1 - inside;
  Directions run(stage >= stages / 2, slots);
  for (int64_t i = 0; i < 2 * outside; ++i) run.forward(true);
  for (int64_t i = 0; i < inside + 1; ++i) run.forward(true), run.forward(false);
  for (int64_t i = 0; i < outside; ++i) run.backward_apart(false), run.weight(), run.forward(false);
  for (int64_t i = 0; i < slots / 2 - stages + inside + 1; ++i) {
    // The two stages in the middle start their first pair one after the other: its input comes late.
    bool together = i > 0 || outside > 0;
    run.forward(true, together), run.backward(false, together);
    run.pair(false);
  }
  for (int64_t i = 0; i < outside; ++i) run.backward(false), run.pair(false);
  // From the middle of the drain on, weight gradients wait for the gaps.
  for (int64_t i = 0; i < 2 * (inside + 1); ++i) {
    bool near = i % 2 == 1;
    i > inside ? run.backward_apart(near) : run.backward(near);
  }
  for (int64_t i = 0; i < outside; ++i) run.weight(), run.backward_apart(true);
  for (int64_t i = 0; i < inside + 1; ++i) run.weight();
  return std::move(run.row);
}

}  // namespace tessera::tables
