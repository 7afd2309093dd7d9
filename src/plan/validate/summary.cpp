#include "plan/validate/summary.h"

#include <algorithm>
#include <cmath>

namespace tessera::plan {
namespace {

double quantile(const std::vector<double>& sorted, double share) {
  auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(sorted.size())));
  return sorted[std::clamp<size_t>(rank, 1, sorted.size()) - 1];
}

double median(const std::vector<double>& sorted) {
  size_t half = sorted.size() / 2;
  return sorted.size() % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

}  // namespace

ErrorSummary summarise(const std::vector<Comparison>& comparisons) {
  ErrorSummary summary;
  if (comparisons.empty()) return summary;
  summary.group = comparisons.front().group;
  summary.metric = comparisons.front().metric;
  summary.rows = static_cast<int>(comparisons.size());
  std::vector<double> errors;
  double inside = 0, rows = static_cast<double>(comparisons.size());
  for (const Comparison& c : comparisons) {
    double error = 100 * (c.predicted / c.published - 1);
    errors.push_back(std::abs(error));
    summary.bias_pct += error / rows;
    summary.mean_abs_pct += std::abs(error) / rows;
    inside += c.low <= c.published && c.published <= c.high ? 1 : 0;
  }
  std::sort(errors.begin(), errors.end());
  summary.median_abs_pct = median(errors);
  summary.p90_abs_pct = quantile(errors, 0.9);
  summary.max_abs_pct = errors.back();
  summary.coverage_pct = 100 * inside / rows;
  return summary;
}

}  // namespace tessera::plan
