// Sections of a recommender's run (tessera recsys train).
#include <algorithm>
#include <cmath>

#include "report/html.h"
#include "report/line_chart.h"
#include "report/measured.h"
#include "report/sections.h"
#include "report/stacked_bars.h"

namespace tessera::report {
namespace {

constexpr const char* kFile = "recsys.json";

std::string share_text(double part, double whole) {
  return whole > 0 ? fmt::format("{:.1f} %", 100 * part / whole) : "-";
}

double sum_of(const Steps& steps, std::string_view key) {
  double sum = 0;
  for (const Json* line : steps.kept) sum += number_at(*line, key).value_or(0);
  return sum;
}

// A value of each test.
LineChart::Series tests_of(const RunFiles& files, std::string name, std::string_view key) {
  LineChart::Series series{.name = std::move(name), .points = {}, .dots = true};
  for (const Json& test : list_at(files.recommender, "tests"))
    if (auto value = number_at(test, key))
      series.points.emplace_back(number_at(test, "step").value_or(0), *value);
  return series;
}

// Samples that passed through a stage in a second of its work, from the seconds under `key`.
LineChart::Series rate_of(const Steps& steps, std::string name, std::string_view key) {
  LineChart::Series series{std::move(name), {}};
  for (const Json* line : steps.kept)
    if (auto seconds = number_at(*line, key); seconds && *seconds > 0)
      series.points.emplace_back(*number_at(*line, "step"), number_at(*line, "samples").value_or(0) / *seconds);
  return series;
}

void add_if_any(LineChart& chart, LineChart::Series series) {
  if (!series.points.empty()) chart.series.push_back(std::move(series));
}

std::string no_steps(const RunFiles& files) {
  std::string problem = files.problem("metrics.jsonl");
  return missing_html(problem.empty() ? "metrics.jsonl has no steps" : problem);
}

std::string no_result(const RunFiles& files) {
  std::string problem = files.problem(kFile);
  return missing_html(problem.empty() ? "the run has not ended" : problem);
}

}  // namespace

std::string recommender_summary(const RunFiles& files) {
  const Json& result = files.recommender;
  std::string tiles;
  if (auto auc = number_at(result, "test_auc")) {
    auto best = number_at(result, "best_auc");
    tiles += tile_html("test AUC", fmt::format("{:.4f}", *auc),
                       best && *best > 0 ? fmt::format("{:.4f} is the best there is", *best) : "");
  }
  if (auto loss = number_at(result, "test_log_loss"))
    tiles += tile_html("test log loss", fmt::format("{:.4f}", *loss), "nats per sample");
  if (auto rate = number_at(result, "samples_per_s"))
    tiles += tile_html("samples/s", number_text(*rate), text_at(result, "mode"));
  double rows = 0, bytes = 0, on_disk = 0;
  for (const Json& group : list_at(result, "groups")) {
    rows += number_at(group, "rows").value_or(0);
    bytes += number_at(group, "bytes").value_or(0);
    on_disk += number_at(group, "disk_rows").value_or(0);
  }
  if (rows > 0)
    tiles +=
        tile_html("rows in memory", number_text(rows),
                  bytes_text(bytes) + (on_disk > 0 ? fmt::format(", {} on disk", number_text(on_disk)) : ""));
  if (auto gets = number_at(result, "cache.gets"))
    tiles += tile_html("worker's cache", share_text(number_at(result, "cache.hits").value_or(0), *gets),
                       "of rows asked for");
  if (auto ratio = number_at(result, "wire.ratio"))
    tiles += tile_html("wire", fmt::format("{:.1f} times", *ratio), "fewer bytes than raw ids and float32");
  std::string error = text_at(files.run, "error");
  if (!error.empty()) tiles += "<p class=\"missing\">The run failed: " + escape(error) + "</p>\n";
  return "<div class=\"tiles\">" + tiles + "</div>\n";
}

std::string recommender_loss(const RunFiles& files) {
  Steps steps = sort_steps(files.metrics);
  if (steps.kept.empty()) return no_steps(files);
  LineChart chart{.x_name = "step", .y_name = "log loss, nats per sample"};
  chart.series.push_back(series_of(steps, "training", "loss"));
  add_if_any(chart, tests_of(files, "test", "test_log_loss"));
  return line_chart_html(chart);
}

std::string recommender_quality(const RunFiles& files) {
  LineChart chart{.x_name = "step", .y_name = "AUC"};
  add_if_any(chart, tests_of(files, "test AUC", "test_auc"));
  if (chart.series.empty())
    return files.recommender.is_object() ? missing_html("the run has no test") : no_result(files);
  if (auto best = number_at(files.recommender, "best_auc"); best && *best > 0)
    chart.horizontal.push_back({*best, fmt::format("best there is {:.4f}", *best)});
  Table table{{"step", "AUC", "log loss", "normalised entropy", "calibration"}, {}, 0};
  for (const Json& test : list_at(files.recommender, "tests")) {
    std::vector<std::string> row = {text_at(test, "step")};
    for (const char* key : {"test_auc", "test_log_loss", "test_normalised_entropy", "test_calibration"}) {
      auto value = number_at(test, key);
      row.push_back(value ? fmt::format("{:.5f}", *value) : "");
    }
    table.rows.push_back(std::move(row));
  }
  return line_chart_html(chart) + table_html(table);
}

std::string recommender_speed(const RunFiles& files) {
  Steps steps = sort_steps(files.metrics);
  if (steps.kept.empty()) return no_steps(files);
  LineChart chart{.x_name = "step", .y_name = "samples/s", .from_zero = true};
  chart.series.push_back(series_of(steps, "whole", "samples_per_s"));
  const std::pair<const char*, const char*> stages[] = {
      {"load", "load_s"}, {"look-up", "look_up_s"}, {"dense step", "dense_s"}, {"update", "update_s"}};
  for (auto [name, key] : stages) add_if_any(chart, rate_of(steps, name, key));
  StackedBars bars{.parts = {"works", "waits"}, .rows = {}, .expected_name = "", .print = seconds_text};
  const double whole = sum_of(steps, "seconds");
  for (auto [name, key] : stages) {
    const double works = sum_of(steps, key);
    const bool looks_up = std::string_view(key) == "look_up_s", dense = std::string_view(key) == "dense_s";
    const double waits = looks_up ? sum_of(steps, "gate_s") : dense ? sum_of(steps, "wait_s") : 0;
    if (works > 0) bars.rows.push_back({name, {works, waits}, std::nullopt});
  }
  return "<p>Stages overlap, so the slowest of them sets the pace; a stage's rate is what it reaches while it "
         "works.</p>\n" +
         line_chart_html(chart) +
         fmt::format(
             "<h3>Where {} went</h3>\n<p>A look-up waits at the bound of staleness, the dense step for its "
             "rows.</p>\n",
             seconds_text(whole)) +
         stacked_bars_html(bars);
}

// Roles that were lost, stopped or slow, hosts, and changes of the number of servers.
std::string recommender_events(const RunFiles& files) {
  if (files.events.empty())
    return missing_html("events.jsonl is not there: only jobs of `tessera launch` have roles that can be lost");
  return failures_section(files);
}

std::string recommender_staleness(const RunFiles& files) {
  const Json& groups = list_at(files.recommender, "groups");
  StackedBars bars{.parts = {}, .rows = {}, .expected_name = "", .print = number_text};
  Table table{{"group", "bound", "mean", "largest", "look-ups"}, {}, 1};
  size_t longest = 0;
  for (const Json& group : groups) {
    bars.parts.push_back(text_at(group, "name"));
    const Json& histogram = list_at(group, "staleness_histogram");
    longest = std::max(longest, histogram.size());
    double lookups = 0;
    for (const Json& count : histogram) lookups += count.is_number() ? count.get<double>() : 0;
    auto mean = number_at(group, "staleness_mean");
    table.rows.push_back({text_at(group, "name"), text_at(group, "staleness_bound"),
                          mean ? fmt::format("{:.2f}", *mean) : "", text_at(group, "staleness_max"),
                          number_text(lookups)});
  }
  if (longest == 0) return no_result(files);
  for (size_t k = 0; k < longest; ++k) {
    StackedBars::Row row{std::to_string(k), {}, std::nullopt};
    for (const Json& group : groups) {
      const Json& histogram = list_at(group, "staleness_histogram");
      row.parts.push_back(k < histogram.size() && histogram[k].is_number() ? histogram[k].get<double>() : 0);
    }
    bars.rows.push_back(std::move(row));
  }
  return "<p>Look-ups by the number of earlier batches whose gradients their group lacked.</p>\n" +
         stacked_bars_html(bars) + table_html(table);
}

std::string recommender_rows(const RunFiles& files) {
  Table table{{"group", "rows", "memory", "evicted", "refused", "on disk", "disk", "came back",
               "gradients without a row"},
              {},
              1};
  auto count = [](const Json& group, const char* key) {
    return number_text(number_at(group, key).value_or(0));
  };
  for (const Json& group : list_at(files.recommender, "groups"))
    table.rows.push_back({text_at(group, "name"), count(group, "rows"),
                          bytes_text(number_at(group, "bytes").value_or(0)), count(group, "evicted"),
                          count(group, "refused"), count(group, "disk_rows"),
                          bytes_text(number_at(group, "disk_bytes").value_or(0)),
                          count(group, "returned_from_disk"), count(group, "absent_gradients")});
  return table.rows.empty() ? no_result(files) : table_html(table);
}

std::string recommender_traffic(const RunFiles& files) {
  const Json& result = files.recommender;
  if (!result.is_object()) return no_result(files);
  auto gets = number_at(result, "cache.gets"), bytes = number_at(result, "wire.bytes");
  if (!gets && !bytes)
    return missing_html(
        "the run keeps no rows at its workers (wire.cache_rows) and packs no messages (wire.compress)");
  std::string html;
  Steps steps = sort_steps(files.metrics);
  if (gets) {
    LineChart chart{.x_name = "step", .y_name = "share of rows that the worker had", .from_zero = true};
    add_if_any(chart, series_of(steps, "cache hits", "cache_hit_rate"));
    html += fmt::format("<p>The workers had {} of {} distinct rows that batches asked for.</p>\n",
                        share_text(number_at(result, "cache.hits").value_or(0), *gets), number_text(*gets));
    if (!chart.series.empty()) html += line_chart_html(chart);
  }
  if (bytes)
    html += fmt::format(
        "<p>Between workers and servers: {}, {:.1f} times fewer than the same ids as 8 bytes and values as "
        "float32.</p>\n",
        bytes_text(*bytes), number_at(result, "wire.ratio").value_or(1));
  return html;
}

}  // namespace tessera::report
