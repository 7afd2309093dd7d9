#include "report/measured.h"

#include <algorithm>
#include <map>

#include "layout/layout.h"

namespace tessera::report {

Steps sort_steps(const std::vector<Json>& metrics) {
  std::map<int64_t, const Json*> last;
  Steps steps;
  for (const Json& line : metrics) {
    auto step = number_at(line, "step");
    if (!step) continue;
    const Json*& slot = last[static_cast<int64_t>(*step)];
    if (slot) steps.redone.push_back(slot);
    slot = &line;
  }
  for (const auto& [step, line] : last) steps.kept.push_back(line);
  return steps;
}

LineChart::Series series_of(const Steps& steps, std::string name, std::string_view key) {
  LineChart::Series series{std::move(name), {}};
  for (const Json* line : steps.kept)
    if (auto value = number_at(*line, key)) series.points.emplace_back(*number_at(*line, "step"), *value);
  return series;
}

std::optional<double> steady_median(const Steps& steps, std::string_view key) {
  std::map<double, int> seen;  // lines of each generation so far
  std::vector<double> values;
  for (const Json* line : steps.kept) {
    bool warm = seen[number_at(*line, "generation").value_or(0)]++ >= 2;
    auto value = number_at(*line, key);
    if (warm && value) values.push_back(*value);
  }
  if (values.empty()) return std::nullopt;
  std::sort(values.begin(), values.end());
  size_t middle = values.size() / 2;
  return values.size() % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

std::optional<double> unigram_entropy(const RunFiles& files) {
  auto entropy = number_at(files.run, "data.unigram_entropy_nats");
  return entropy ? entropy : number_at(files.data, "unigram_entropy_nats");
}

std::optional<Evaluation> last_evaluation(const Steps& steps) {
  for (auto line = steps.kept.rbegin(); line != steps.kept.rend(); ++line)
    if (auto loss = number_at(**line, "valid_loss"))
      return Evaluation{static_cast<int64_t>(*number_at(**line, "step")), *loss};
  return std::nullopt;
}

bool same_layout(const Json& planned, const std::string& ran) {
  auto layout = parse_layout(ran);
  if (!layout.ok() || !planned.is_object()) return false;
  auto degree = [&](const char* axis) { return static_cast<int64_t>(number_at(planned, axis).value_or(1)); };
  std::string schedule = text_at(planned, "schedule"), recompute = text_at(planned, "recompute");
  bool equal_schedule = layout->pp == 1 || schedule.empty() || schedule == to_string(layout->schedule);
  bool equal_recompute = recompute.empty() || recompute == to_string(layout->recompute);
  return degree("dp") == layout->dp && degree("fsdp") == layout->fsdp && degree("tp") == layout->tp &&
         degree("pp") == layout->pp && degree("cp") == layout->cp && degree("ep") == layout->ep &&
         equal_schedule && equal_recompute;
}

const Json* prediction_of(const RunFiles& files) {
  const Json& results = list_at(files.plan, "results");
  std::string ran = text_at(files.run, "layout");
  for (const Json& result : results)
    if (ran.empty() || same_layout(json_at(result, "layout"), ran)) return &result;
  return nullptr;
}

std::vector<double> peak_bytes(const RunFiles& files) {
  std::vector<double> peaks;
  for (const Json& rank : list_at(files.memory, "ranks"))
    peaks.push_back(number_at(rank, "peak_bytes").value_or(0));
  if (!peaks.empty() || files.metrics.empty()) return peaks;
  for (const Json& value : list_at(files.metrics.back(), "memory_peak_bytes"))
    peaks.push_back(number_at(value, "").value_or(0));
  return peaks;
}

double copied_bytes(const RunFiles& files, size_t rank) {
  const Json& ranks = list_at(files.memory, "ranks");
  return rank < ranks.size() ? number_at(ranks[rank], "classes.copies").value_or(0) : 0;
}

std::optional<double> predicted_peak_bytes(const RunFiles& files, size_t rank) {
  constexpr double kGib = 1024.0 * 1024 * 1024;
  const Json* prediction = prediction_of(files);
  if (!prediction) return std::nullopt;
  auto layout = parse_layout(text_at(files.run, "layout"));
  const Json& stages = list_at(*prediction, "memory_gib.by_stage");
  if (layout.ok()) {
    auto stage = static_cast<size_t>(coordinate_of(*layout, static_cast<int64_t>(rank)).pp);
    auto gib = stage < stages.size() ? number_at(stages[stage], "") : std::nullopt;
    if (gib) return *gib * kGib;
  }
  auto peak = number_at(*prediction, "memory_gib.peak");
  return peak ? std::optional(*peak * kGib) : std::nullopt;
}

}  // namespace tessera::report
