// What the planner said before the run, beside what the run measured; and memory in detail.
#include <algorithm>
#include <set>

#include "report/html.h"
#include "report/measured.h"
#include "report/sections.h"
#include "report/stacked_bars.h"

namespace tessera::report {
namespace {

std::string error_text(std::optional<double> predicted, std::optional<double> measured) {
  return predicted && measured && *measured != 0 ? percent_text(*predicted / *measured - 1) : "";
}

std::string shown(std::optional<double> value, std::string (*print)(double)) {
  return value ? print(*value) : "not known";
}

std::string layout_text(const Json& layout) {
  std::string text;
  for (const char* axis : {"dp", "fsdp", "tp", "pp", "cp", "ep"})
    if (auto degree = number_at(layout, axis); degree && *degree != 1)
      text += fmt::format("{}{}={}", text.empty() ? "" : ",", axis, *degree);
  for (const char* key : {"schedule", "recompute"}) {
    std::string value = text_at(layout, key);
    if (!value.empty() && value != "none" && (number_at(layout, "pp").value_or(1) > 1 || key[0] == 'r'))
      text += fmt::format("{}{}={}", text.empty() ? "" : ",", key, value);
  }
  return text.empty() ? "dp=1" : text;
}

std::string comparison_table(const RunFiles& files, const Json& prediction) {
  Steps steps = sort_steps(files.metrics);
  auto step_time = steady_median(steps, "seconds"), rate = steady_median(steps, "tokens_per_s");
  auto predicted = number_at(prediction, "step_time_s");
  auto tokens = steady_median(steps, "tokens");
  std::optional<double> predicted_rate;
  if (predicted && tokens) predicted_rate = *tokens / *predicted;
  Table table{{"", "predicted", "measured", "prediction off by"}, {}};
  table.rows.push_back({"step time (median)", shown(predicted, seconds_text), shown(step_time, seconds_text),
                        error_text(predicted, step_time)});
  table.rows.push_back({"tokens/s", shown(predicted_rate, number_text), shown(rate, number_text),
                        error_text(predicted_rate, rate)});
  auto peaks = peak_bytes(files);
  for (size_t rank = 0; rank < peaks.size(); ++rank) {
    auto expected = predicted_peak_bytes(files, rank);
    double of_step = peaks[rank] - copied_bytes(files, rank);
    table.rows.push_back({fmt::format("peak memory of a step, rank {}", rank), shown(expected, bytes_text),
                          bytes_text(of_step), error_text(expected, of_step)});
  }
  return table_html(table);
}

std::string breakdown_html(const Json& prediction) {
  StackedBars bars{.print = seconds_text};
  bars.rows.push_back({"predicted", {}, std::nullopt});
  const Json& breakdown = json_at(prediction, "breakdown");
  if (!breakdown.is_object()) return "";
  for (const auto& [name, value] : breakdown.items()) {
    if (!value.is_number() || value.get<double>() <= 0) continue;
    bars.parts.push_back(name);
    bars.rows[0].parts.push_back(value.get<double>());
  }
  return bars.parts.empty() ? "" : "<h3>Where the predicted step goes</h3>\n" + stacked_bars_html(bars);
}

std::string candidates_html(const RunFiles& files) {
  Table table{{"layout", "step time", "low", "high", "tokens/s per process", "peak memory", "ran"}, {}};
  std::string ran = text_at(files.run, "layout");
  for (const Json& result : list_at(files.plan, "results")) {
    if (table.rows.size() == 10) break;
    auto cell = [&](const char* key, auto print) {
      auto value = number_at(result, key);
      return value ? print(*value) : std::string();
    };
    const Json& layout = json_at(result, "layout");
    table.rows.push_back({layout_text(layout), cell("step_time_s", seconds_text),
                          cell("step_time_s_low", seconds_text), cell("step_time_s_high", seconds_text),
                          cell("tokens_per_s_per_gpu", number_text),
                          cell("memory_gib.peak", [](double gib) { return bytes_text(gib * (1 << 30)); }),
                          !ran.empty() && same_layout(layout, ran) ? "yes" : ""});
  }
  return details_html("The best layouts of the plan", table_html(table));
}

// What each figure behind the prediction comes from.
std::string sources_html(const Json& prediction) {
  Table table{{"figure", "source"}, {}, 2};
  for (const Json& one : list_at(prediction, "provenance"))
    table.rows.push_back({text_at(one, "figure"), text_at(one, "source")});
  return table.rows.empty() ? "" : details_html("Sources of the prediction", table_html(table));
}

}  // namespace

std::string prediction_section(const RunFiles& files) {
  if (list_at(files.plan, "results").empty())
    return missing_html(files.problem("plan.json").empty() ? "plan.json has no results"
                                                           : files.problem("plan.json"));
  const Json* prediction = prediction_of(files);
  if (!prediction)
    return missing_html("plan.json has no prediction for the layout that ran, " +
                        text_at(files.run, "layout")) +
           candidates_html(files);
  return comparison_table(files, *prediction) + sources_html(*prediction) + breakdown_html(*prediction) +
         candidates_html(files);
}

std::string memory_section(const RunFiles& files) {
  auto peaks = peak_bytes(files);
  if (peaks.empty()) return missing_html(files.problem("memory.json"));
  StackedBars bars{.expected_name = "predicted, without copies", .print = bytes_text};
  std::set<std::string> classes;
  const Json& ranks = list_at(files.memory, "ranks");
  for (const Json& rank : ranks) {
    const Json& parts = json_at(rank, "classes");
    if (!parts.is_object()) continue;
    for (const auto& [name, bytes] : parts.items()) classes.insert(name);
  }
  bars.parts.assign(classes.begin(), classes.end());
  if (bars.parts.empty()) bars.parts = {"live tensors"};
  for (size_t i = 0; i < peaks.size(); ++i) {
    StackedBars::Row row{fmt::format("rank {}", i), {}, predicted_peak_bytes(files, i)};
    for (const std::string& name : classes)
      row.parts.push_back(number_at(ranks[i], "classes." + name).value_or(0));
    if (classes.empty()) row.parts = {peaks[i]};
    bars.rows.push_back(std::move(row));
  }
  Table table{{"rank", "peak of live tensors", "process without tensors"}, {}};
  for (const std::string& name : classes) table.head.push_back(name);
  for (size_t i = 0; i < peaks.size(); ++i) {
    auto base = i < ranks.size() ? number_at(ranks[i], "process_base_bytes") : std::nullopt;
    std::vector<std::string> cells = {fmt::format("rank {}", i), bytes_text(peaks[i]),
                                      base ? bytes_text(*base) : ""};
    if (!classes.empty())
      for (double part : bars.rows[i].parts) cells.push_back(bytes_text(part));
    table.rows.push_back(std::move(cells));
  }
  return stacked_bars_html(bars) + details_html("Memory as a table", table_html(table));
}

}  // namespace tessera::report
