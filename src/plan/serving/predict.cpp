#include "plan/serving/predict.h"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/toml.h"
#include "plan/embedded.h"
#include "plan/serving/offered_load.h"

namespace tessera::plan::serving {
namespace {

bool is_sixteen_bit(WeightFormat format) {
  return format == WeightFormat::bf16 || format == WeightFormat::float32;
}

Bounded bounded(double value, Interval interval) {
  return {.value = value, .low = value * interval.low, .high = value * interval.high};
}

}  // namespace

ModelLoader caching(ModelLoader load) {
  auto cache = std::make_shared<std::map<std::string, Result<Blueprint>>>();
  return [cache, load = std::move(load)](const std::string& name) -> Result<Blueprint> {
    auto found = cache->find(name);
    if (found == cache->end()) found = cache->emplace(name, load(name)).first;
    return found->second;
  };
}

Result<Deployment> deployment_of(const ServingCase& c, const WorkerLayout& layout, const Blueprint& model,
                                 const EngineCatalogue& engines) {
  Deployment d;
  d.model = model;
  d.layout = layout;
  d.speculation = c.speculation;
  TESSERA_ASSIGN_OR_RETURN(d.device, accelerator(c.device));
  TESSERA_ASSIGN_OR_RETURN(d.engine, engines.find(c.engine, c.version));
  for (const EngineField& field : engine_fields())
    if (auto found = c.constants.find(field.name); found != c.constants.end())
      d.engine.*field.member = found->second;
  TESSERA_ASSIGN_OR_RETURN(WeightFormat products, parse_weight_format(c.products));
  TESSERA_ASSIGN_OR_RETURN(WeightFormat experts, parse_weight_format(c.experts));
  bool drafts = d.speculation.depth == 0 && d.engine.draft_tokens >= 1 && !model.mtp.empty();
  if (drafts)
    d.speculation = {.depth = static_cast<int64_t>(d.engine.draft_tokens),
                     .acceptance = d.engine.draft_acceptance};
  double kv = c.kv_bytes > 0 ? c.kv_bytes : is_sixteen_bit(products) ? 2 : d.engine.kv_bytes;
  d.formats = formats_for(model, products, experts, kv);
  return d;
}

Result<Estimate> predict(const ServingCase& c, const Blueprint& model, const EngineCatalogue& engines) {
  TESSERA_ASSIGN_OR_RETURN(Deployment front, deployment_of(c, c.layout, model, engines));
  if (!c.disaggregated) return aggregated(front, c.traffic, c.workers);
  TESSERA_ASSIGN_OR_RETURN(Deployment back, deployment_of(c, c.decode_layout, model, engines));
  return disaggregated({.prefill = std::move(front),
                        .decode = std::move(back),
                        .prefill_workers = c.workers,
                        .decode_workers = c.decode_workers},
                       c.traffic);
}

std::string interval_key(const ServingCase& c, const Estimate& estimate, const std::string& metric) {
  const char* arrival = c.traffic.arrival == Arrival::flood   ? "flood"
                        : c.traffic.arrival == Arrival::open  ? "open"
                        : c.traffic.arrival == Arrival::batch ? "batch"
                                                              : "closed";
  return fmt::format("{}.{}.{}.{}", c.disaggregated ? "disaggregated" : "aggregated", arrival,
                     estimate.saturated && c.traffic.arrival != Arrival::flood ? "full" : "normal", metric);
}

Result<Intervals> Intervals::parse(const std::string& text, const std::string& name) {
  TESSERA_ASSIGN_OR_RETURN(TomlDocument document, parse_toml(text, name));
  Intervals intervals;
  for (const auto& [key, pair] : document.root.items()) {
    if (!pair.is_array()) continue;
    if (pair.size() != 2 || !pair[0].is_number() || !pair[1].is_number())
      return invalid("{}: '{}' must be [low, high]", name, key);
    intervals.table[key] = {.low = pair[0].get<double>(), .high = pair[1].get<double>()};
  }
  return intervals;
}

const Intervals& Intervals::built_in() {
  static const Intervals intervals = [] {
    for (const EmbeddedFile& file : embedded_files())
      if (file.path == "serving/intervals.toml") {
        auto parsed = parse(file.text, file.path);
        TESSERA_REQUIRE(parsed.ok(), "{}", parsed.ok() ? "" : parsed.error().message);
        return *std::move(parsed);
      }
    return Intervals();
  }();
  return intervals;
}

// Widest of the kinds that share the metric, where a kind has no rows of its own.
Interval Intervals::find(const std::string& key) const {
  auto found = table.find(key);
  if (found != table.end()) return found->second;
  std::string metric = key.substr(key.find_last_of('.'));
  Interval widest;
  for (const auto& [name, interval] : table)
    if (name.ends_with(metric))
      widest = {.low = std::min(widest.low, interval.low), .high = std::max(widest.high, interval.high)};
  return widest;
}

std::string Intervals::to_toml() const {
  std::string text;
  for (const auto& [key, interval] : table)
    text += fmt::format("\"{}\" = [{:.3f}, {:.3f}]\n", key, interval.low, interval.high);
  return text;
}

namespace {

RowResult predict_row(const ServingCase& c, const ModelLoader& models, const EngineCatalogue& engines,
                      const Intervals& intervals) {
  RowResult row{
      .input = c, .refused = c.refused, .estimate = {}, .ttft_ms = {}, .tpot_ms = {}, .tok_s_gpu = {}};
  if (!row.refused.empty()) return row;
  Result<Blueprint> model = models(c.model);
  if (!model) {
    row.refused = model.error().message;
    return row;
  }
  Result<Estimate> estimate = predict(c, *model, engines);
  if (!estimate) {
    row.refused = estimate.error().message;
    return row;
  }
  row.estimate = *estimate;
  auto of = [&](const char* metric) { return intervals.find(interval_key(c, *estimate, metric)); };
  row.ttft_ms = bounded(1000 * estimate->ttft_s, of("ttft_ms"));
  row.tpot_ms = bounded(1000 * estimate->tpot_s, of("tpot_ms"));
  row.tok_s_gpu = bounded(estimate->tokens_per_s_gpu, of("tok_s_gpu"));
  return row;
}

std::string device_of(const ServingCase& c) {
  Result<Accelerator> device = accelerator(c.device);
  return device ? device->name : c.device;
}

struct Collector {
  std::map<std::pair<std::string, std::string>, std::vector<Comparison>> groups;
  std::map<std::string, int> refused;

  void add(const std::string& group, const char* metric, const Bounded& predicted, double published) {
    if (published > 0)
      groups[{group, metric}].push_back({.group = group,
                                         .metric = metric,
                                         .predicted = predicted.value,
                                         .published = published,
                                         .low = predicted.low,
                                         .high = predicted.high});
  }
  void add(const std::string& group, const RowResult& row) {
    if (!row.refused.empty()) {
      ++refused[group];
      return;
    }
    const Published& published = row.input.published;
    add(group, "tpot_ms", row.tpot_ms, published.tpot_ms);
    add(group, "ttft_ms", row.ttft_ms, published.ttft_ms);
    bool flood = row.input.traffic.arrival == Arrival::flood;
    add(group, flood ? "saturated tok_s_gpu" : "tok_s_gpu", row.tok_s_gpu, published.tok_s_gpu);
  }
};

}  // namespace

ValidationReport validate(const std::vector<ServingCase>& cases, const ModelLoader& models,
                          const EngineCatalogue& engines, const Intervals& intervals) {
  ValidationReport report;
  Collector collector;
  std::vector<bool> counts = offers_less_than_saturation(cases);
  for (size_t i = 0; i < cases.size(); ++i) {
    const ServingCase& c = cases[i];
    report.rows.push_back(predict_row(c, models, engines, intervals));
    const RowResult& row = report.rows.back();
    std::string mode = c.disaggregated ? "disaggregated" : "aggregated";
    for (const std::string& group :
         {std::string("all"), std::string(c.calibration ? "calibration part" : "test part"), mode,
          "engine " + c.source, "gpu " + device_of(c), "model " + c.model})
      collector.add(group, row);
    if (counts[i] && row.refused.empty())
      collector.add("offered below saturation", row),
          collector.add(c.calibration ? "offered below, calibration" : "offered below, test", row);
    if (row.refused.empty() && !row.estimate.saturated && c.traffic.arrival != Arrival::flood)
      collector.add("below saturation", row),
          collector.add(c.calibration ? "below saturation, calibration" : "below saturation, test", row);
  }
  for (const auto& [key, comparisons] : collector.groups) {
    report.summary.push_back(summarise(comparisons));
    report.summary.back().refused = collector.refused[key.first];
  }
  auto rank = [](const ErrorSummary& s) {
    return s.group == "all"                             ? 0
           : s.group.find(" part") != std::string::npos ? 1
           : s.group.find("offered") == 0               ? 2
           : s.group.find("below") == 0                 ? 3
                                                        : 4;
  };
  std::stable_sort(report.summary.begin(), report.summary.end(),
                   [&](const ErrorSummary& a, const ErrorSummary& b) { return rank(a) < rank(b); });
  return report;
}

}  // namespace tessera::plan::serving
