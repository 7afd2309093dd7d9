#include "plan/serving/validation_report.h"

#include <nlohmann/json.hpp>

namespace tessera::plan::serving {
namespace {

std::string compared(const char* name, const Bounded& predicted, double published) {
  if (published <= 0) return "";
  return fmt::format("  {} {:.4g} published {:.4g} ({:+.1f} %)", name, predicted.value, published,
                     100 * (predicted.value / published - 1));
}

void put(nlohmann::json& out, const std::string& name, const Bounded& value) {
  out[name] = value.value;
  out[name + "_low"] = value.low;
  out[name + "_high"] = value.high;
}

nlohmann::json row_json(const RowResult& row) {
  nlohmann::json out = {
      {"id", row.input.id}, {"predicted", nullptr}, {"refused", nullptr}, {"assumed", row.input.assumed}};
  out["part"] = row.input.calibration ? "calibration" : "test";
  if (!row.refused.empty()) {
    out["refused"] = row.refused;
    return out;
  }
  nlohmann::json predicted = nlohmann::json::object();
  put(predicted, "ttft_ms", row.ttft_ms);
  put(predicted, "tpot_ms", row.tpot_ms);
  put(predicted, "tok_s_gpu", row.tok_s_gpu);
  predicted["saturated"] = row.estimate.saturated;
  out["predicted"] = std::move(predicted);
  return out;
}

}  // namespace

std::string validation_rows(const ValidationReport& report) {
  std::string text;
  for (const RowResult& row : report.rows) {
    text += row.input.id;
    if (!row.refused.empty()) {
      text += "  refused: " + row.refused + "\n";
      continue;
    }
    text += compared("TTFT ms", row.ttft_ms, row.input.published.ttft_ms) +
            compared("TPOT ms", row.tpot_ms, row.input.published.tpot_ms) +
            compared("tok/s/GPU", row.tok_s_gpu, row.input.published.tok_s_gpu) +
            (row.estimate.saturated ? "  saturated" : "") + "\n";
  }
  return text;
}

std::string validation_summary(const ValidationReport& report) {
  std::string text =
      fmt::format("{:<36} {:<20} {:>5} {:>7} {:>7} {:>7} {:>7} {:>8} {:>7} {:>8}\n", "group", "metric", "rows",
                  "refused", "mean %", "median", "p90", "max", "bias", "in 90 %");
  for (const ErrorSummary& s : report.summary)
    text += fmt::format("{:<36} {:<20} {:>5} {:>7} {:>7.1f} {:>7.1f} {:>7.1f} {:>8.1f} {:>+7.1f} {:>8.1f}\n",
                        s.group, s.metric, s.rows, s.refused, s.mean_abs_pct, s.median_abs_pct, s.p90_abs_pct,
                        s.max_abs_pct, s.bias_pct, s.coverage_pct);
  return text;
}

nlohmann::json validation_json(const ValidationReport& report) {
  nlohmann::json rows = nlohmann::json::array(), summary = nlohmann::json::array();
  for (const RowResult& row : report.rows) rows.push_back(row_json(row));
  for (const ErrorSummary& s : report.summary)
    summary.push_back({{"group", s.group},
                       {"metric", s.metric},
                       {"rows", s.rows},
                       {"refused", s.refused},
                       {"mean_abs_pct", s.mean_abs_pct},
                       {"median_abs_pct", s.median_abs_pct},
                       {"p90_abs_pct", s.p90_abs_pct},
                       {"max_abs_pct", s.max_abs_pct},
                       {"bias_pct", s.bias_pct},
                       {"coverage_pct", s.coverage_pct}});
  return {{"rows", std::move(rows)}, {"summary", std::move(summary)}};
}

}  // namespace tessera::plan::serving
