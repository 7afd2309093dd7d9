// Times small pieces of work on a shared machine.
#pragma once

#include <algorithm>
#include <vector>

#include "core/clock.h"

namespace tessera::train {

// Median seconds of one call of `work`: at least three batches, then as many as fit into `budget_s`. Calls are
// batched so that the clock's own cost does not count.
template <class Work>
double median_seconds(double budget_s, Work work) {
  Clock::time_point start = Clock::now();
  work();  // warms caches and allocators
  double once = std::max(seconds_since(start), 1e-9);
  auto calls = static_cast<int64_t>(std::clamp(2e-4 / once, 1.0, 1000.0));
  std::vector<double> samples;
  while (samples.size() < 3 || (seconds_since(start) < budget_s && samples.size() < 50)) {
    Clock::time_point begin = Clock::now();
    for (int64_t i = 0; i < calls; ++i) work();
    samples.push_back(seconds_since(begin) / static_cast<double>(calls));
  }
  std::nth_element(samples.begin(), samples.begin() + static_cast<long>(samples.size() / 2), samples.end());
  return samples[samples.size() / 2];
}

}  // namespace tessera::train
