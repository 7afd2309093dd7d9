#include <algorithm>

#include "schedule/tables.h"

namespace tessera::tables {
namespace {

// Actions of two chunks, each kind in order of slots.
class Counted {
 public:
  explicit Counted(int64_t slots) : slots_(slots) {}
  void run(Action::Kind kind, int64_t chunk) {
    int64_t slot = next_[kind][chunk]++;
    if (slot < slots_) row.push_back({.kind = kind, .slot = slot, .chunk = chunk});
  }
  void run_backward_apart(int64_t chunk) {
    run(Action::backward_input, chunk);
    run(Action::backward_weight, chunk);
  }
  int64_t count(Action::Kind kind, int64_t chunk) const { return next_[kind][chunk]; }
  Row row;

 private:
  int64_t slots_;
  int64_t next_[4][2] = {};
};

}  // namespace

// 1F1B whose weight gradients wait, so that the drain is filled with them. ZB-H1 delays them by the stage's
// number; ZB-H2 by twice of it, and runs twice as far ahead.
Row zero_bubble(int64_t stage, int64_t stages, int64_t slots, int64_t ahead) {
  Counted out(slots);
  int64_t warm_up = std::min(ahead * (stages - 1 - stage), slots);
  for (int64_t m = 0; m < warm_up; ++m) out.run(Action::forward, 0);
  for (int64_t m = 0; m < slots; ++m) {
    bool draining = warm_up + m >= slots;
    if (!draining) out.run(Action::forward, 0);
    out.run(Action::backward_input, 0);
    if (draining || m >= ahead * stage) out.run(Action::backward_weight, 0);
  }
  while (out.count(Action::backward_weight, 0) < slots) out.run(Action::backward_weight, 0);
  return std::move(out.row);
}

// Chunk 0 runs down the stages, chunk 1 back up: the last stage turns a micro-batch around, the first ends it
// and starts its backward. The order is that for times forward = backward of inputs = of weights. Written for
// at least 2 stages - 1 slots; fewer leave theirs out.
Row zero_bubble_v(int64_t stage, int64_t stages, int64_t slots) {
  Counted out(slots);
  int64_t most = std::max(2 * stages - 1, slots), behind = stages - stage;
  for (int64_t i = 0; i < 2 * behind - 1; ++i) out.run(Action::forward, 0);
  for (int64_t i = 0; i < stage; ++i) out.run(Action::forward, 1), out.run(Action::forward, 0);
  for (int64_t i = 0; i < behind; ++i) out.run(Action::forward, 1), out.run_backward_apart(1);
  while (out.count(Action::forward, 1) < most) {
    if (out.count(Action::forward, 0) < most) out.run(Action::forward, 0);
    out.run_backward_apart(0);
    out.run(Action::forward, 1), out.run_backward_apart(1);
  }
  // Gradients of inputs go first to those who wait for them.
  for (int64_t i = 0; i < stage; ++i) out.run(Action::backward_input, 0), out.run(Action::backward_input, 1);
  for (int64_t i = 0; i < behind; ++i) out.run_backward_apart(0);
  for (int64_t chunk : {1, 0})
    while (out.count(Action::backward_weight, chunk) < most) out.run(Action::backward_weight, chunk);
  return std::move(out.row);
}

}  // namespace tessera::tables
