#include "schedule/recurrence.h"

#include <algorithm>
#include <limits>

namespace tessera {
namespace {

constexpr double kNotYet = -1;

// When outputs of (piece, slot) are ready.
class ReadyTimes {
 public:
  ReadyTimes(const Schedule& schedule, double transfer_s)
      : schedule_(schedule),
        transfer_s_(transfer_s),
        pieces_(pieces_of(schedule.kind, schedule.stages, schedule.chunks)) {
    size_t size = static_cast<size_t>(pieces_ * schedule.slots);
    forward_.assign(size, kNotYet), backward_.assign(size, kNotYet);
  }
  int64_t piece(const Action& action) const {
    return piece_of(schedule_.kind, schedule_.stages, action.stage, action.chunk);
  }
  double input(const Action& action) const {
    int64_t at = piece(action);
    if (action.kind == Action::forward) return at == 0 ? 0 : sent(forward_, at - 1, at, action.slot);
    if (action.kind == Action::backward_weight) return backward_[index(at, action.slot)];
    double own = forward_[index(at, action.slot)];
    if (at == pieces_ - 1 || own == kNotYet) return own;
    return sent(backward_, at + 1, at, action.slot);
  }
  void finish(const Action& action, double time) {
    size_t place = index(piece(action), action.slot);
    if (action.kind == Action::forward) forward_[place] = time;
    if (action.kind == Action::backward || action.kind == Action::backward_input) backward_[place] = time;
  }

 private:
  size_t index(int64_t piece, int64_t slot) const {
    return static_cast<size_t>(piece * schedule_.slots + slot);
  }
  double sent(const std::vector<double>& outputs, int64_t from, int64_t to, int64_t slot) const {
    double ready = outputs[index(from, slot)];
    return ready == kNotYet || same_stage(from, to) ? ready : ready + transfer_s_;
  }
  // At the turn of a V the next piece is on the same stage.
  bool same_stage(int64_t from, int64_t to) const {
    if (schedule_.stages == 1) return true;
    return is_v_shaped(schedule_.kind) && std::max(from, to) % schedule_.stages == 0;
  }

  const Schedule& schedule_;
  double transfer_s_;
  int64_t pieces_;
  std::vector<double> forward_, backward_;
};

double seconds_of(Action::Kind kind, const PieceTime& time) {
  switch (kind) {
    case Action::forward:
      return time.forward;
    case Action::backward:
      return time.backward_input + time.backward_weight;
    case Action::backward_input:
      return time.backward_input;
    case Action::backward_weight:
      return time.backward_weight;
  }
  return 0;
}

// Runs the next action of a row, or the next two where they are a pair, as soon as all inputs are there.
// Returns how many ran.
size_t advance(const std::vector<Action>& row, std::vector<ActionSpan>& done, ReadyTimes& ready,
               const std::vector<PieceTime>& of_piece) {
  size_t first = done.size(), count = row[first].paired ? 2 : 1;
  double start = done.empty() ? 0 : done.back().end, seconds = 0, saves = 0;
  for (size_t i = first; i < first + count; ++i) {
    double input = ready.input(row[i]);
    if (input == kNotYet) return 0;
    const PieceTime& time = of_piece[static_cast<size_t>(ready.piece(row[i]))];
    start = std::max(start, input);
    seconds += seconds_of(row[i].kind, time);
    saves += time.pair_saves / 2;
  }
  if (count == 2) seconds -= saves;
  for (size_t i = first; i < first + count; ++i) {
    done.push_back({start, start + seconds});
    ready.finish(row[i], start + seconds);
  }
  return count;
}

}  // namespace

std::vector<std::vector<ActionSpan>> spans(const Schedule& schedule, const std::vector<PieceTime>& of_piece,
                                           double transfer_s) {
  ReadyTimes ready(schedule, transfer_s);
  std::vector<std::vector<ActionSpan>> done(schedule.table.size());
  size_t left = 0;
  for (const auto& row : schedule.table) left += row.size();
  for (bool moved = true; moved && left > 0;) {
    moved = false;
    for (size_t stage = 0; stage < schedule.table.size(); ++stage)
      while (done[stage].size() < schedule.table[stage].size()) {
        size_t ran = advance(schedule.table[stage], done[stage], ready, of_piece);
        if (ran == 0) break;
        left -= ran, moved = true;
      }
  }
  if (left > 0) done.clear();
  return done;
}

double makespan(const Schedule& schedule, const std::vector<double>& forward_s,
                const std::vector<double>& backward_s, double transfer_s,
                std::vector<std::vector<double>>* finish) {
  std::vector<PieceTime> of_piece;
  for (size_t stage = 0; stage < forward_s.size(); ++stage)
    of_piece.push_back({.forward = forward_s[stage], .backward_input = backward_s[stage]});
  auto all = spans(schedule, of_piece, transfer_s);
  if (finish) finish->assign(all.size(), {});
  if (all.empty()) return std::numeric_limits<double>::infinity();
  double last = 0;
  for (size_t stage = 0; stage < all.size(); ++stage)
    for (const ActionSpan& span : all[stage]) {
      last = std::max(last, span.end);
      if (finish) (*finish)[stage].push_back(span.end);
    }
  return last;
}

}  // namespace tessera
