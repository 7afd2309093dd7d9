// The bound of the hybrid algorithm (Persia, arXiv 2111.05897): a batch reads rows while earlier batches have
// not yet given their gradients back, but never while more than `bound` of them have not. Staleness of a
// look-up is the number of earlier batches whose gradients its group lacks at that moment; 0 is synchronous
// training.
//
// Each group has its own bound and its own histogram: frequent ids want a small one, rare ids bear a large one.
// Threads: any; enter() of one group from one thread at a time.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "core/result.h"

namespace tessera::recsys_train {

struct StalenessBounds {
  std::vector<int64_t> of_groups;
  // The bounds grow from 0 to these over so many steps. At first all gradients of an id point the same way and
  // rows have far to go: late gradients overshoot then, and a short run does not recover from it.
  int64_t warmup_steps = 0;

  int64_t at(int64_t group, int64_t step) const {
    const int64_t bound = of_groups[static_cast<size_t>(group)];
    return step >= warmup_steps ? bound : bound * step / warmup_steps;
  }
  int64_t largest() const { return *std::max_element(of_groups.begin(), of_groups.end()); }
};

class StalenessGate {
 public:
  // REQUIRES: bounds at least 0.
  explicit StalenessGate(StalenessBounds bounds);

  // Before the look-up of step `step` in a group: waits until at most its bound of earlier batches are
  // outstanding, notes how many there are, and counts this batch as outstanding. Fails after abort().
  Status enter(int64_t group, int64_t step = INT64_MAX);
  // After the gradients of one batch were applied in a group. REQUIRES: one enter() before.
  void applied(int64_t group);
  // Counts a batch that an earlier process looked up.
  void take_over(int64_t group);
  // Ends every wait, now and later, with `error`.
  void abort(Error error);

  int64_t bound(int64_t group, int64_t step = INT64_MAX) const { return bounds_.at(group, step); }
  int64_t largest_bound() const { return bounds_.largest(); }
  int64_t outstanding(int64_t group) const;
  // histogram[k]: look-ups that saw staleness k.
  std::vector<int64_t> histogram(int64_t group) const;

 private:
  struct Group {
    int64_t outstanding = 0;
    std::vector<int64_t> histogram;
  };
  StalenessBounds bounds_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Group> groups_;
  std::optional<Error> aborted_;
};

}  // namespace tessera::recsys_train
