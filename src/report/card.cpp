// Who the run is: the figures on top of the page, generated text, and the card with everything that was set.
#include <algorithm>

#include "report/html.h"
#include "report/measured.h"
#include "report/sections.h"

namespace tessera::report {
namespace {

void flatten(const Json& value, const std::string& path, Table& table) {
  if (!value.is_object()) {
    table.rows.push_back({path, value.is_string()
                                    ? value.get<std::string>()
                                    : value.dump(-1, ' ', false, Json::error_handler_t::replace)});
    return;
  }
  for (const auto& [key, member] : value.items()) flatten(member, path.empty() ? key : path + "." + key, table);
}

std::string flat_table(const Json& value) {
  Table table{{"key", "value"}, {}, 2};
  flatten(value, "", table);
  return table_html(table);
}

}  // namespace

std::string summary_section(const RunFiles& files) {
  Steps steps = sort_steps(files.metrics);
  std::string tiles;
  if (auto total = number_at(files.run, "parameters.total")) {
    auto active = number_at(files.run, "parameters.active");
    tiles +=
        tile_html("parameters", fmt::format("{:.4g} M", *total / 1e6),
                  active && *active != *total ? fmt::format("{:.4g} M active per token", *active / 1e6) : "");
  }
  std::string layout = text_at(files.run, "layout");
  if (!layout.empty()) tiles += tile_html("layout", layout, text_at(files.run, "processes") + " processes");
  if (!steps.kept.empty()) {
    auto loss = number_at(*steps.kept.back(), "loss");
    tiles += tile_html("steps", std::to_string(steps.kept.size()),
                       steps.redone.empty() ? "" : fmt::format("{} done twice", steps.redone.size()));
    if (loss) tiles += tile_html("training loss", fmt::format("{:.3f}", *loss), "nats per token, last step");
  }
  if (auto valid = last_evaluation(steps))
    tiles += tile_html("held-out loss", fmt::format("{:.3f}", valid->loss),
                       fmt::format("after step {}", valid->step));
  if (auto rate = steady_median(steps, "tokens_per_s"))
    tiles += tile_html("tokens/s", number_text(*rate), "median");
  auto lost = std::count_if(files.events.begin(), files.events.end(),
                            [](const Json& event) { return text_at(event, "event") == "lost"; });
  if (!files.events.empty()) tiles += tile_html("workers lost", std::to_string(lost));
  std::string error = text_at(files.run, "error");
  if (!error.empty()) tiles += "<p class=\"missing\">The run failed: " + escape(error) + "</p>\n";
  return "<div class=\"tiles\">" + tiles + "</div>\n";
}

std::string samples_section(const RunFiles& files) {
  if (!files.samples.is_array() || files.samples.empty())
    return missing_html(files.problem("samples.json").empty() ? "samples.json is empty"
                                                              : files.problem("samples.json"));
  std::string html;
  for (const Json& sample : files.samples) {
    std::string facts = text_at(sample, "tokens").empty() ? "" : text_at(sample, "tokens") + " tokens";
    if (auto rate = number_at(sample, "tokens_per_s"))
      facts += fmt::format(", {} tokens/s", number_text(*rate));
    if (auto wait = number_at(sample, "ttft_s")) facts += fmt::format(", first after {}", seconds_text(*wait));
    std::string layout = text_at(sample, "layout");
    if (!layout.empty()) facts += ", served with " + layout;
    html += fmt::format("<figure><pre><b>{}</b>{}</pre><figcaption>{}</figcaption></figure>\n",
                        escape(text_at(sample, "prompt")), escape(text_at(sample, "text")), escape(facts));
  }
  return html;
}

std::string card_section(const RunFiles& files) {
  std::string html = files.run.is_object() ? flat_table(files.run) : missing_html(files.problem("run.json"));
  if (files.is_recommender()) return html;
  html += "<h3>Calibration of the machine</h3>\n";
  html += files.calibration.is_object()
              ? details_html("The cluster file that the prediction stands on", flat_table(files.calibration))
              : missing_html(files.problem("calibration.toml"));
  return html;
}

}  // namespace tessera::report
