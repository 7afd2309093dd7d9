// The cloud of layouts behind a plan's picture: what else could have been run, on these devices and on half,
// a quarter, twice and four times as many, and the front of time against money through the best of them.
//
// A space of many layouts is thinned evenly to what a browser draws. Threads: reentrant.
#pragma once

#include <string>
#include <vector>

#include "plan/training/gpu_search.h"

namespace tessera::plan {

struct LayoutPoint {
  int64_t gpus = 0;
  double hours = 0;  // of the run, or of a step when no tokens are given
  double usd = 0;    // of the same
  double tokens_per_s_per_device = 0;
  double peak_bytes = 0;
  bool fits = false;
  std::string layout;
};

struct LayoutCloud {
  std::vector<LayoutPoint> points;
  std::vector<LayoutPoint> front;  // fastest first: each later one is slower and cheaper
};

LayoutPoint layout_point(const GpuPrediction& one);
LayoutCloud layout_cloud(const GpuPlanRequest& request);

}  // namespace tessera::plan
