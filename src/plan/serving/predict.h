// Predictions of published cases, from their inputs only, with 90 % intervals, and the comparison of them all.
//
// The intervals are the 5th and 95th percentile of published / predicted over the calibration part, by kind of
// load and metric (data/serving/intervals.toml); they hold for engines and hardware that part knows.
// Threads: const functions.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "plan/serving/cases.h"
#include "plan/validate/summary.h"

namespace tessera::plan::serving {

using ModelLoader = std::function<Result<Blueprint>(const std::string& catalogue_name)>;

// `load`, but each model once. Threads: one.
ModelLoader caching(ModelLoader load);

Result<Deployment> deployment_of(const ServingCase& c, const WorkerLayout& layout, const Blueprint& model,
                                 const EngineCatalogue& engines);
Result<Estimate> predict(const ServingCase& c, const Blueprint& model, const EngineCatalogue& engines);

struct Interval {
  double low = 0.7, high = 1.4;  // published / predicted
};
// What the uncertainty depends on: aggregated or not, kind of arrivals, full or not; and the metric.
std::string interval_key(const ServingCase& c, const Estimate& estimate, const std::string& metric);
class Intervals {
 public:
  static Result<Intervals> parse(const std::string& toml, const std::string& name);
  static const Intervals& built_in();
  Interval find(const std::string& key) const;
  std::string to_toml() const;
  std::map<std::string, Interval> table;
};

struct Bounded {
  double value = 0, low = 0, high = 0;
};
struct RowResult {
  ServingCase input;
  std::string refused;
  Estimate estimate;
  Bounded ttft_ms, tpot_ms, tok_s_gpu;
};
struct ValidationReport {
  std::vector<RowResult> rows;
  std::vector<ErrorSummary> summary;  // by part, source, accelerator and metric; "all" first
};
ValidationReport validate(const std::vector<ServingCase>& cases, const ModelLoader& models,
                          const EngineCatalogue& engines, const Intervals& intervals);

}  // namespace tessera::plan::serving
