#include "plan/pipeline.h"

#include <algorithm>
#include <limits>

#include "schedule/recurrence.h"

namespace tessera::plan {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

class Fluid {
 public:
  Fluid(const Schedule& schedule, const std::vector<double>& forward_s, const std::vector<double>& backward_s,
        double transfer_s, int64_t processes_per_stage, const Cluster& cluster)
      : schedule_(schedule),
        forward_s_(forward_s),
        backward_s_(backward_s),
        transfer_s_(transfer_s),
        processes_(static_cast<double>(processes_per_stage)),
        cluster_(cluster),
        next_(schedule.table.size(), 0),
        left_(schedule.table.size(), kNever),
        end_(static_cast<size_t>(2 * schedule.stages * schedule.slots), kNever) {}

  double run() {
    size_t done = 0, total = 0;
    for (const auto& row : schedule_.table) total += row.size();
    while (done < total) {
      double wake = start_ready();
      double running = 0, shortest = kNever;
      for (double left : left_)
        if (left < kNever) running += 1, shortest = std::min(shortest, left);
      if (running == 0 && wake == kNever) return kNever;
      double speed = running > 0 ? cluster_.speed_of(running * processes_) : 1;
      double step = std::min(running > 0 ? shortest / speed : kNever, wake - now_);
      now_ += step;
      done += advance(step * speed, shortest);
    }
    return now_;
  }

 private:
  double& end(int64_t stage, Action::Kind kind, int64_t slot) {
    return end_[static_cast<size_t>((stage * 2 + (kind == Action::backward)) * schedule_.slots + slot)];
  }

  // When the input of an action is there; never when what it waits for has not ended.
  double ready(const Action& action) {
    if (action.kind == Action::forward)
      return action.stage == 0 ? 0 : end(action.stage - 1, Action::forward, action.slot) + transfer_s_;
    if (action.stage + 1 == schedule_.stages) return end(action.stage, Action::forward, action.slot);
    return end(action.stage + 1, Action::backward, action.slot) + transfer_s_;
  }

  // Starts what can start now; returns the earliest time at which an idle stage could start.
  double start_ready() {
    double wake = kNever;
    for (size_t stage = 0; stage < next_.size(); ++stage) {
      if (left_[stage] < kNever || next_[stage] == schedule_.table[stage].size()) continue;
      const Action& action = schedule_.table[stage][next_[stage]];
      double at = ready(action);
      if (at <= now_)
        left_[stage] = action.kind == Action::forward ? forward_s_[stage] : backward_s_[stage];
      else
        wake = std::min(wake, at);
    }
    return wake;
  }

  // Takes `work` off every running stage; those that had no more than it end. Returns how many ended.
  size_t advance(double work, double shortest) {
    size_t ended = 0;
    for (size_t stage = 0; stage < next_.size(); ++stage) {
      if (left_[stage] == kNever) continue;
      bool last_drop = left_[stage] == shortest && work >= shortest * (1 - 1e-12);
      left_[stage] -= work;
      if (!last_drop && left_[stage] > 1e-15) continue;
      const Action& action = schedule_.table[stage][next_[stage]++];
      end(action.stage, action.kind, action.slot) = now_;
      left_[stage] = kNever;
      ++ended;
    }
    return ended;
  }

  const Schedule& schedule_;
  const std::vector<double>&forward_s_, &backward_s_;
  double transfer_s_, processes_;
  const Cluster& cluster_;
  double now_ = 0;
  std::vector<size_t> next_;
  std::vector<double> left_, end_;
};

}  // namespace

double shared_makespan(const Schedule& schedule, const std::vector<double>& forward_s,
                       const std::vector<double>& backward_s, double transfer_s, int64_t processes_per_stage,
                       const Cluster& cluster) {
  if (!cluster.shares_cores()) return makespan(schedule, forward_s, backward_s, transfer_s);
  return Fluid(schedule, forward_s, backward_s, transfer_s, processes_per_stage, cluster).run();
}

}  // namespace tessera::plan
