// Curves over the steps: loss and speed.
#include <algorithm>
#include <cmath>

#include "report/html.h"
#include "report/line_chart.h"
#include "report/measured.h"
#include "report/sections.h"

namespace tessera::report {
namespace {

// The step at which each new generation began.
std::vector<LineChart::Mark> recoveries(const Steps& steps) {
  std::vector<LineChart::Mark> marks;
  double generation = -1;
  for (const Json* line : steps.kept) {
    double now = number_at(*line, "generation").value_or(0);
    if (generation >= 0 && now != generation) marks.push_back({*number_at(*line, "step"), "recovery"});
    generation = now;
  }
  return marks;
}

std::string text_of(const Json& line, const char* key) {
  auto value = number_at(line, key);
  return value ? number_text(*value) : "";
}

// At most 40 rows, evenly spread, the last always there.
std::string steps_table(const Steps& steps) {
  Table table;
  table.head = {"step", "loss", "held-out loss", "gradient norm", "learning rate", "seconds", "tokens/s"};
  table.text_columns = 0;
  size_t every = std::max<size_t>(1, (steps.kept.size() + 39) / 40);
  for (size_t i = 0; i < steps.kept.size(); ++i) {
    const Json& line = *steps.kept[i];
    bool shown = i % every == 0 || i + 1 == steps.kept.size() || line.contains("valid_loss");
    if (!shown) continue;
    std::vector<std::string> row;
    for (const char* key :
         {"step", "loss", "valid_loss", "gradient_norm", "learning_rate", "seconds", "tokens_per_s"})
      row.push_back(text_of(line, key));
    table.rows.push_back(std::move(row));
  }
  return table_html(table);
}

}  // namespace

std::string loss_section(const RunFiles& files) {
  Steps steps = sort_steps(files.metrics);
  if (steps.kept.empty())
    return missing_html(files.problem("metrics.jsonl").empty() ? "metrics.jsonl has no steps"
                                                               : files.problem("metrics.jsonl"));
  LineChart chart{.x_name = "step", .y_name = "loss, nats per token"};
  chart.series.push_back(series_of(steps, "training", "loss"));
  auto valid = series_of(steps, "held out", "valid_loss");
  valid.dots = true;
  std::string note;
  if (!valid.points.empty()) chart.series.push_back(valid);
  if (auto entropy = unigram_entropy(files)) {
    chart.horizontal.push_back({*entropy, fmt::format("unigram entropy {:.2f}", *entropy)});
    if (auto last = last_evaluation(steps))
      note = fmt::format(
          "<p>Held-out loss after step {}: <b>{:.3f}</b> nats, {:.2f} {} the unigram entropy of {:.3f}.</p>",
          last->step, last->loss, std::abs(*entropy - last->loss), last->loss < *entropy ? "below" : "above",
          *entropy);
  }
  chart.vertical = recoveries(steps);
  return note + line_chart_html(chart) + details_html("The steps as a table", steps_table(steps));
}

std::string speed_section(const RunFiles& files) {
  Steps steps = sort_steps(files.metrics);
  if (steps.kept.empty()) return missing_html("there are no steps in metrics.jsonl");
  LineChart chart{.x_name = "step", .y_name = "seconds of a step", .from_zero = true};
  chart.series.push_back(series_of(steps, "step", "seconds"));
  auto exposed = series_of(steps, "communication waited for", "exposed_comm_s");
  auto hidden = series_of(steps, "communication hidden", "hidden_comm_s");
  if (!exposed.points.empty()) chart.series.push_back(exposed);
  if (!hidden.points.empty()) chart.series.push_back(hidden);
  if (const Json* prediction = prediction_of(files))
    if (auto predicted = number_at(*prediction, "step_time_s"))
      chart.horizontal.push_back({*predicted, "predicted " + seconds_text(*predicted)});
  chart.vertical = recoveries(steps);
  return line_chart_html(chart);
}

}  // namespace tessera::report
