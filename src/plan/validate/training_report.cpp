#include "plan/validate/training_report.h"

#include <fmt/ranges.h>

#include <map>
#include <nlohmann/json.hpp>

#include "plan/training/memory.h"
#include "plan/training/memory_constants.h"

namespace tessera::plan {
namespace {

using nlohmann::json;

// Sources differ in page and release only after a bracket or a comma.
std::string short_source(const std::string& source) {
  return source.substr(0, std::min<size_t>(source.size(), 60));
}

class Groups {
 public:
  explicit Groups(std::string metric) : metric_(std::move(metric)) {}
  void add(const std::string& group, const Comparison& comparison) {
    rows_[group].push_back(comparison);
    rows_[group].back().group = group;
  }
  void refuse(const std::string& group) { ++refused_[group]; }
  std::vector<ErrorSummary> summaries() {
    for (const auto& [group, count] : refused_) rows_[group];
    std::vector<ErrorSummary> all;
    for (const auto& [group, rows] : rows_) {
      ErrorSummary summary = summarise(rows);
      summary.group = group, summary.metric = metric_, summary.refused = refused_[group];
      all.push_back(summary);
    }
    return all;
  }

 private:
  std::string metric_;
  std::map<std::string, std::vector<Comparison>> rows_;
  std::map<std::string, int> refused_;
};

std::vector<std::string> groups_of(const TrainingCase& one) {
  std::vector<std::string> groups = {"all", one.calibration ? "calibration" : "test", "gpu " + one.gpu,
                                     "source " + short_source(one.source)};
  if (one.newest) {
    groups.push_back("newest");
    groups.push_back(one.calibration ? "newest calibration" : "newest test");
  }
  if (one.id.starts_with("seqsel-") && !one.id.ends_with("-2240gpu")) groups.push_back("set Korthikanti 8");
  if (one.id.starts_with("simumax-")) groups.push_back("set SimuMax 43");
  return groups;
}

std::string assumed_text(const std::map<std::string, std::string>& assumed) {
  std::vector<std::string> parts;
  for (const auto& [column, value] : assumed) parts.push_back(column + "=" + value);
  return fmt::format("{}", fmt::join(parts, " "));
}

json row_json(const TrainingCheck& check) {
  const TrainingCase& one = check.published;
  json row = {{"id", one.id}, {"refused", nullptr}, {"predicted", nullptr}, {"assumed", one.assumed}};
  row["calibration"] = one.calibration, row["newest"] = one.newest, row["source"] = one.source;
  row["software"] = one.software.name, row["gpu"] = one.gpu, row["device"] = one.cluster.name;
  if (!one.refused.empty()) return row["refused"] = one.refused, row;
  const TrainingStep& step = check.predicted;
  const TrainingBreakdown& parts = step.breakdown;
  row["predicted"] = {{"step_time_s", step.seconds},
                      {"step_time_s_low", step.low},
                      {"step_time_s_high", step.high},
                      {"tokens_per_s_per_gpu", step.tokens_per_s_per_device},
                      {"memory_gib", check.memory_gib},
                      {"memory_gib_low", check.memory_gib * (1 - check.memory_half_width)},
                      {"memory_gib_high", check.memory_gib * (1 + check.memory_half_width)}};
  row["fits"] = check.fits;
  if (one.out_of_memory) row["outcome"] = "out of memory";
  row["published"] = {{"step_time_s", one.step_time_s ? json(*one.step_time_s) : json(nullptr)},
                      {"memory_gib", one.memory_gib ? json(*one.memory_gib) : json(nullptr)}};
  row["breakdown"] = {
      {"compute", parts.compute}, {"tp", parts.tp}, {"cp", parts.cp},         {"ep", parts.ep},
      {"pp", parts.pp},           {"dp", parts.dp}, {"bubble", parts.bubble}, {"optimizer", parts.optimizer},
      {"host", parts.host}};
  return row;
}

void predict_memory(TrainingCheck& check) {
  const TrainingCase& one = check.published;
  auto stages = training_memory(one.setup);
  for (const TrainingMemory& stage : stages)
    check.memory_gib = std::max(check.memory_gib, reported_bytes(one.setup, stage) / (1024.0 * 1024 * 1024));
  check.memory_half_width = memory_constants(one.setup.options.framework).half_width;
  check.fits = check_fits(one.setup, one.cluster.device.memory_bytes).ok();
}

std::vector<ErrorSummary> summarise_memory(const std::vector<TrainingCheck>& checks) {
  Groups groups("memory_gib");
  for (const TrainingCheck& check : checks) {
    const TrainingCase& one = check.published;
    if (!one.memory_gib || !one.refused.empty()) continue;
    for (const std::string& group : groups_of(one))
      groups.add(group, {.group = group,
                         .metric = "memory_gib",
                         .predicted = check.memory_gib,
                         .published = *one.memory_gib,
                         .low = check.memory_gib * (1 - check.memory_half_width),
                         .high = check.memory_gib * (1 + check.memory_half_width)});
  }
  return groups.summaries();
}

}  // namespace

std::vector<TrainingCheck> check_training(std::vector<TrainingCase> cases) {
  std::vector<TrainingCheck> checks;
  for (TrainingCase& one : cases) {
    TrainingCheck check{.published = std::move(one), .predicted = {}};
    if (check.published.refused.empty()) {
      auto step = training_step_time(check.published.setup, for_training(check.published.cluster),
                                     check.published.software);
      if (step)
        check.predicted = *step;
      else
        check.published.refused = step.error().message;
    }
    if (check.published.refused.empty()) predict_memory(check);
    checks.push_back(std::move(check));
  }
  return checks;
}

std::vector<ErrorSummary> summarise_training(const std::vector<TrainingCheck>& checks) {
  Groups groups("step_time_s");
  for (const TrainingCheck& check : checks) {
    const TrainingCase& one = check.published;
    for (const std::string& group : groups_of(one)) {
      if (!one.refused.empty())
        groups.refuse(group);
      else if (one.step_time_s)
        groups.add(group, {.group = group,
                           .metric = "step_time_s",
                           .predicted = check.predicted.seconds,
                           .published = *one.step_time_s,
                           .low = check.predicted.low,
                           .high = check.predicted.high});
    }
  }
  std::vector<ErrorSummary> all = groups.summaries();
  for (ErrorSummary& summary : summarise_memory(checks)) all.push_back(std::move(summary));
  return all;
}

MemoryVerdicts memory_verdicts(const std::vector<TrainingCheck>& checks) {
  MemoryVerdicts verdicts;
  for (const TrainingCheck& check : checks) {
    const TrainingCase& one = check.published;
    if (!one.refused.empty()) continue;
    if (check.fits == one.out_of_memory) verdicts.wrong.push_back(one.id);
    if (one.out_of_memory) {
      ++verdicts.out_of_memory, verdicts.refused += check.fits ? 0 : 1;
      continue;
    }
    ++verdicts.ran, verdicts.accepted += check.fits ? 1 : 0;
    bool open = one.assumed.contains("recompute") && one.assumed.at("recompute") != "none";
    verdicts.by_recomputation += check.fits && open ? 1 : 0;
  }
  return verdicts;
}

std::string verdict_line(const MemoryVerdicts& v) {
  std::string text;
  if (v.ran > 0)
    text += fmt::format(
        "memory: of {} configurations that ran, {} are accepted ({} with an assumed recomputation)\n", v.ran,
        v.accepted, v.by_recomputation);
  if (v.out_of_memory > 0)
    text += fmt::format("memory: of {} that ran out of it, {} are refused\n", v.out_of_memory, v.refused);
  if (!v.wrong.empty()) text += fmt::format("memory: wrong about {}\n", fmt::join(v.wrong, ", "));
  return text;
}

std::string row_table(const std::vector<TrainingCheck>& checks) {
  std::string text =
      fmt::format("{:58} {:>10} {:>10} {:>7}  {}\n", "id", "published", "predicted", "error", "");
  for (const TrainingCheck& check : checks) {
    const TrainingCase& one = check.published;
    if (!one.refused.empty()) {
      text += fmt::format("{:58} refused: {}\n", one.id, one.refused);
      continue;
    }
    std::string assumed = assumed_text(one.assumed);
    if (!assumed.empty()) assumed = "assumed " + assumed;
    if (!one.step_time_s) {
      text +=
          fmt::format("{:58} {:>10} {:10.4g} {:>7}  {}\n", one.id, "-", check.predicted.seconds, "-", assumed);
      continue;
    }
    double error = 100 * (check.predicted.seconds / *one.step_time_s - 1);
    text += fmt::format("{:58} {:10.4g} {:10.4g} {:+6.1f}%  {}\n", one.id, *one.step_time_s,
                        check.predicted.seconds, error, assumed);
  }
  return text;
}

std::string summary_table(const std::vector<ErrorSummary>& summary) {
  std::string text =
      fmt::format("{:11} {:72} {:>5} {:>7} {:>6} {:>6} {:>6} {:>6} {:>6} {:>8}\n", "metric", "group", "rows",
                  "refused", "mean", "median", "p90", "max", "bias", "coverage");
  for (const ErrorSummary& one : summary)
    text += fmt::format("{:11} {:72} {:5} {:7} {:6.1f} {:6.1f} {:6.1f} {:6.1f} {:+6.1f} {:8.0f}\n", one.metric,
                        one.group, one.rows, one.refused, one.mean_abs_pct, one.median_abs_pct, one.p90_abs_pct,
                        one.max_abs_pct, one.bias_pct, one.coverage_pct);
  return text;
}

json training_json(const std::vector<TrainingCheck>& checks, const std::vector<ErrorSummary>& summary) {
  json rows = json::array(), groups = json::array();
  for (const TrainingCheck& check : checks) rows.push_back(row_json(check));
  for (const ErrorSummary& one : summary)
    groups.push_back({{"group", one.group},
                      {"metric", one.metric},
                      {"rows", one.rows},
                      {"refused", one.refused},
                      {"mean_abs_pct", one.mean_abs_pct},
                      {"median_abs_pct", one.median_abs_pct},
                      {"p90_abs_pct", one.p90_abs_pct},
                      {"max_abs_pct", one.max_abs_pct},
                      {"bias_pct", one.bias_pct},
                      {"coverage_pct", one.coverage_pct}});
  MemoryVerdicts verdicts = memory_verdicts(checks);
  json memory = {{"ran", verdicts.ran},
                 {"accepted", verdicts.accepted},
                 {"accepted_by_assumed_recomputation", verdicts.by_recomputation},
                 {"out_of_memory", verdicts.out_of_memory},
                 {"refused", verdicts.refused},
                 {"wrong", verdicts.wrong}};
  return {{"rows", rows}, {"summary", groups}, {"verdicts", memory}};
}

}  // namespace tessera::plan
