#include "recsys_train/staleness.h"

namespace tessera::recsys_train {

StalenessGate::StalenessGate(StalenessBounds bounds)
    : bounds_(std::move(bounds)), groups_(bounds_.of_groups.size()) {
  for (int64_t bound : bounds_.of_groups) TESSERA_REQUIRE(bound >= 0, "staleness bound {}", bound);
}

Status StalenessGate::enter(int64_t number, int64_t step) {
  std::unique_lock lock(mutex_);
  Group& group = groups_[static_cast<size_t>(number)];
  changed_.wait(lock, [&] { return aborted_ || group.outstanding <= bound(number, step); });
  if (aborted_) return *aborted_;
  auto seen = static_cast<size_t>(group.outstanding);
  if (group.histogram.size() <= seen) group.histogram.resize(seen + 1);
  ++group.histogram[seen];
  ++group.outstanding;
  return {};
}

void StalenessGate::applied(int64_t number) {
  {
    std::lock_guard lock(mutex_);
    Group& group = groups_[static_cast<size_t>(number)];
    TESSERA_REQUIRE(group.outstanding > 0, "gradients of group {} applied without a look-up", number);
    --group.outstanding;
  }
  changed_.notify_all();
}

void StalenessGate::take_over(int64_t group) {
  std::lock_guard lock(mutex_);
  ++groups_[static_cast<size_t>(group)].outstanding;
}

void StalenessGate::abort(Error error) {
  {
    std::lock_guard lock(mutex_);
    if (!aborted_) aborted_ = std::move(error);
  }
  changed_.notify_all();
}

int64_t StalenessGate::outstanding(int64_t group) const {
  std::lock_guard lock(mutex_);
  return groups_[static_cast<size_t>(group)].outstanding;
}

std::vector<int64_t> StalenessGate::histogram(int64_t group) const {
  std::lock_guard lock(mutex_);
  return groups_[static_cast<size_t>(group)].histogram;
}

}  // namespace tessera::recsys_train
