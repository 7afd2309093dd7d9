#include "train/timeline.h"

#include <algorithm>

#include "model/failure.h"

namespace tessera::train {
namespace {

constexpr const char* kEventNames[] = {"count", "forward", "backward", "reduce", "optimizer"};

// Fixed-size form of an event, to be gathered.
struct PackedEvent {
  int64_t name = -1, slot = -1;
  double begin_s = 0, end_s = 0;
};

}  // namespace

std::vector<std::vector<TimelineEvent>> gather_timelines(Group& world, const std::vector<TimelineEvent>& mine) {
  auto longest = static_cast<float>(mine.size());
  model::check(world.all_reduce_max({&longest, 1}));
  auto each = static_cast<size_t>(longest), ranks = static_cast<size_t>(world.size());
  std::vector<PackedEvent> packed(each), all(each * ranks);
  for (size_t i = 0; i < mine.size(); ++i) {
    const TimelineEvent& event = mine[i];
    auto name = std::find(std::begin(kEventNames), std::end(kEventNames), event.name) - std::begin(kEventNames);
    packed[i] = {name, event.slot, event.begin_s, event.end_s};
  }
  model::check(
      world.all_gather(bytes_of(std::span<const PackedEvent>(packed)), mutable_bytes_of(std::span(all))));
  std::vector<std::vector<TimelineEvent>> timelines(ranks);
  for (size_t i = 0; i < all.size(); ++i)
    if (all[i].name >= 0)
      timelines[i / each].push_back({kEventNames[all[i].name], all[i].slot, all[i].begin_s, all[i].end_s});
  return timelines;
}

}  // namespace tessera::train
