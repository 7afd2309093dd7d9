#include "schedule/schedule.h"

#include <algorithm>
#include <limits>

namespace tessera {
namespace {

std::vector<Action> gpipe_stage(int64_t stage, int64_t slots) {
  std::vector<Action> actions;
  for (int64_t slot = 0; slot < slots; ++slot) actions.push_back({Action::forward, stage, slot});
  for (int64_t slot = 0; slot < slots; ++slot) actions.push_back({Action::backward, stage, slot});
  return actions;
}

std::vector<Action> one_f_one_b_stage(int64_t stage, int64_t stages, int64_t slots) {
  std::vector<Action> actions;
  int64_t warm_up = std::min(stages - stage, slots), next_forward = 0;
  while (next_forward < warm_up) actions.push_back({Action::forward, stage, next_forward++});
  for (int64_t slot = 0; slot < slots; ++slot) {
    actions.push_back({Action::backward, stage, slot});
    if (next_forward < slots) actions.push_back({Action::forward, stage, next_forward++});
  }
  return actions;
}

constexpr double kNotYet = -1;

// End times of all actions by stage, kind and slot while the recurrence runs.
struct Times {
  Times(int64_t stages, int64_t slots)
      : slots_(slots), end_(static_cast<size_t>(2 * stages * slots), kNotYet) {}
  double& at(int64_t stage, Action::Kind kind, int64_t slot) {
    return end_[static_cast<size_t>((stage * 2 + (kind == Action::backward)) * slots_ + slot)];
  }

 private:
  int64_t slots_;
  std::vector<double> end_;
};

// When the input of an action is there, or kNotYet.
double input_ready(const Action& action, int64_t stages, double transfer_s, Times& times) {
  if (action.kind == Action::forward) {
    if (action.stage == 0) return 0;
    double sent = times.at(action.stage - 1, Action::forward, action.slot);
    return sent == kNotYet ? kNotYet : sent + transfer_s;
  }
  if (times.at(action.stage, Action::forward, action.slot) == kNotYet) return kNotYet;
  if (action.stage == stages - 1) return times.at(action.stage, Action::forward, action.slot);
  double sent = times.at(action.stage + 1, Action::backward, action.slot);
  return sent == kNotYet ? kNotYet : sent + transfer_s;
}

}  // namespace

Schedule make_schedule(PipelineSchedule kind, int64_t stages, int64_t slots) {
  Schedule schedule{stages, slots, {}};
  for (int64_t stage = 0; stage < stages; ++stage)
    schedule.table.push_back(kind == PipelineSchedule::gpipe ? gpipe_stage(stage, slots)
                                                             : one_f_one_b_stage(stage, stages, slots));
  return schedule;
}

double makespan(const Schedule& schedule, const std::vector<double>& forward_s,
                const std::vector<double>& backward_s, double transfer_s,
                std::vector<std::vector<double>>* finish) {
  Times times(schedule.stages, schedule.slots);
  std::vector<size_t> next(schedule.table.size(), 0);
  std::vector<double> free_at(schedule.table.size(), 0);
  if (finish) finish->assign(schedule.table.size(), {});
  double last = 0;
  for (bool moved = true; moved;) {
    moved = false;
    for (size_t stage = 0; stage < schedule.table.size(); ++stage) {
      while (next[stage] < schedule.table[stage].size()) {
        const Action& action = schedule.table[stage][next[stage]];
        double ready = input_ready(action, schedule.stages, transfer_s, times);
        if (ready == kNotYet) break;
        double cost = action.kind == Action::forward ? forward_s[stage] : backward_s[stage];
        double end = std::max(ready, free_at[stage]) + cost;
        times.at(action.stage, action.kind, action.slot) = free_at[stage] = end;
        if (finish) (*finish)[stage].push_back(end);
        last = std::max(last, end);
        ++next[stage];
        moved = true;
      }
    }
  }
  for (size_t stage = 0; stage < schedule.table.size(); ++stage)
    if (next[stage] < schedule.table[stage].size()) return std::numeric_limits<double>::infinity();  // deadlock
  return last;
}

Status validate(const Schedule& schedule) {
  if (schedule.table.size() != static_cast<size_t>(schedule.stages))
    return invalid("schedule: {} rows for {} stages", schedule.table.size(), schedule.stages);
  for (int64_t stage = 0; stage < schedule.stages; ++stage) {
    const auto& row = schedule.table[static_cast<size_t>(stage)];
    std::vector<int64_t> forwards, backwards;
    for (const Action& action : row) {
      if (action.stage != stage)
        return invalid("schedule: row {} holds an action of stage {}", stage, action.stage);
      if (action.slot < 0 || action.slot >= schedule.slots)
        return invalid("schedule: stage {} runs slot {} of {}", stage, action.slot, schedule.slots);
      if (action.kind == Action::backward && std::count(forwards.begin(), forwards.end(), action.slot) == 0)
        return invalid("schedule: stage {} runs the backward of slot {} before its forward", stage,
                       action.slot);
      (action.kind == Action::forward ? forwards : backwards).push_back(action.slot);
    }
    if (!std::is_sorted(backwards.begin(), backwards.end()))
      return invalid("schedule: stage {} runs backwards out of order", stage);
    std::sort(forwards.begin(), forwards.end());
    for (auto* list : {&forwards, &backwards})
      if (static_cast<int64_t>(list->size()) != schedule.slots ||
          std::adjacent_find(list->begin(), list->end()) != list->end())
        return invalid("schedule: stage {} does not run each of {} slots once", stage, schedule.slots);
  }
  std::vector<double> unit(schedule.table.size(), 1);
  if (makespan(schedule, unit, unit, 0) == std::numeric_limits<double>::infinity())
    return invalid("schedule: stages wait for each other in a circle");
  return {};
}

int64_t peak_slots_in_flight(const Schedule& schedule, int64_t stage) {
  int64_t now = 0, peak = 0;
  for (const Action& action : schedule.table[static_cast<size_t>(stage)]) {
    now += action.kind == Action::forward ? 1 : -1;
    peak = std::max(peak, now);
  }
  return peak;
}

std::string draw(const Schedule& schedule) {
  std::string text;
  for (const auto& row : schedule.table) {
    for (const Action& action : row)
      text += fmt::format("{}{} ", action.kind == Action::forward ? 'F' : 'B', action.slot);
    text.back() = '\n';
  }
  return text;
}

}  // namespace tessera
