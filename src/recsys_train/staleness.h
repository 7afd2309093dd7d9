// The bound of the hybrid algorithm (Persia, arXiv 2111.05897): a batch reads rows while earlier batches have
// not yet given their gradients back, but never while more than `bound` of them have not. Staleness of a
// look-up is the number of earlier batches whose gradients its group lacks at that moment; 0 is synchronous
// training.
//
// Each group has its own bound and its own histogram: frequent ids want a small one, rare ids bear a large one.
// Threads: any; enter() of one group from one thread at a time.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "core/result.h"

namespace tessera::recsys_train {

class StalenessGate {
 public:
  // REQUIRES: bounds at least 0.
  explicit StalenessGate(std::vector<int64_t> bounds);

  // Before the look-up of a batch in a group: waits until at most its bound of earlier batches are outstanding,
  // notes how many there are, and counts this batch as outstanding. Fails after abort().
  Status enter(int64_t group);
  // After the gradients of one batch were applied in a group. REQUIRES: one enter() before.
  void applied(int64_t group);
  // Counts a batch that an earlier process looked up.
  void take_over(int64_t group);
  // Ends every wait, now and later, with `error`.
  void abort(Error error);

  int64_t bound(int64_t group) const { return bounds_[static_cast<size_t>(group)]; }
  int64_t outstanding(int64_t group) const;
  // histogram[k]: look-ups that saw staleness k.
  std::vector<int64_t> histogram(int64_t group) const;

 private:
  struct Group {
    int64_t outstanding = 0;
    std::vector<int64_t> histogram;
  };
  std::vector<int64_t> bounds_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Group> groups_;
  std::optional<Error> aborted_;
};

}  // namespace tessera::recsys_train
