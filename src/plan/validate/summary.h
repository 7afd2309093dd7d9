// How far predictions are off: relative errors of one metric in one group of rows, and how many published
// figures lie inside their stated interval.
//
// Errors are 100 * (predicted / published - 1); p90 is the smallest error that at least 90 % do not exceed.
// Threads: values.
#pragma once

#include <string>
#include <vector>

namespace tessera::plan {

struct Comparison {
  std::string group, metric;
  double predicted = 0, published = 0;
  double low = 0, high = 0;  // interval; 0, 0: none given
};

struct ErrorSummary {
  std::string group, metric;
  int rows = 0, refused = 0;
  double mean_abs_pct = 0, median_abs_pct = 0, p90_abs_pct = 0, max_abs_pct = 0, bias_pct = 0, coverage_pct = 0;
};

// REQUIRES: published > 0 in each.
ErrorSummary summarise(const std::vector<Comparison>& comparisons);

}  // namespace tessera::plan
