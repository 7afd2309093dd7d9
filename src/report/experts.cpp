// How evenly the router spreads tokens over the experts, over the steps of the run.
#include <algorithm>

#include "report/heat_map.h"
#include "report/html.h"
#include "report/measured.h"
#include "report/sections.h"

namespace tessera::report {
namespace {

constexpr size_t kMaxColumns = 96;

struct StepTokens {
  int64_t step;
  std::vector<double> tokens;
};

std::vector<StepTokens> tokens_of(const Steps& steps) {
  std::vector<StepTokens> list;
  for (const Json* line : steps.kept) {
    const Json& counts = list_at(*line, "expert_tokens");
    if (counts.empty()) continue;
    StepTokens entry{static_cast<int64_t>(*number_at(*line, "step")), {}};
    for (const Json& count : counts) entry.tokens.push_back(number_at(count, "").value_or(0));
    if (list.empty() || list[0].tokens.size() == entry.tokens.size()) list.push_back(std::move(entry));
  }
  return list;
}

// Share of each expert times the number of experts, over the steps [first, last): 1 is balanced.
std::vector<double> ratios(const std::vector<StepTokens>& list, size_t first, size_t last) {
  std::vector<double> sums(list[0].tokens.size());
  double total = 0;
  for (size_t i = first; i < last; ++i) {
    for (size_t expert = 0; expert < sums.size(); ++expert) {
      sums[expert] += list[i].tokens[expert];
      total += list[i].tokens[expert];
    }
  }
  for (double& sum : sums) sum = total > 0 ? sum / total * static_cast<double>(sums.size()) : 0;
  return sums;
}

}  // namespace

std::string experts_section(const RunFiles& files) {
  std::vector<StepTokens> list = tokens_of(sort_steps(files.metrics));
  if (list.empty())
    return missing_html("no step of metrics.jsonl has expert_tokens; a dense model has no experts");
  size_t experts = list[0].tokens.size(), bin = (list.size() + kMaxColumns - 1) / kMaxColumns;
  HeatMap map{.column_name = "step"};
  for (size_t expert = 0; expert < experts; ++expert) map.rows.push_back(fmt::format("expert {}", expert));
  map.values.resize(experts);
  for (size_t first = 0; first < list.size(); first += bin) {
    auto column = ratios(list, first, std::min(first + bin, list.size()));
    map.columns.push_back(std::to_string(list[first].step));
    for (size_t expert = 0; expert < experts; ++expert) map.values[expert].push_back(column[expert]);
  }
  size_t tenth = std::max<size_t>(1, list.size() / 10);
  auto begin = ratios(list, 0, tenth), end = ratios(list, list.size() - tenth, list.size());
  Table table{{"expert", "share at the start", "share at the end"}, {}};
  for (size_t expert = 0; expert < experts; ++expert)
    table.rows.push_back(
        {map.rows[expert], fmt::format("{:.2f}", begin[expert]), fmt::format("{:.2f}", end[expert])});
  double worst = *std::max_element(end.begin(), end.end());
  return fmt::format(
             "<p>Tokens of each expert relative to an even share, all layers together. In the last tenth of "
             "the "
             "run the busiest expert got <b>{:.2f}</b> times its share.</p>\n",
             worst) +
         heat_map_html(map) + details_html("The balance as a table", table_html(table));
}

}  // namespace tessera::report
