// One horizontal bar per row, cut into parts, with an optional mark for what was expected; as SVG.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace tessera::report {

struct StackedBars {
  struct Row {
    std::string name;
    std::vector<double> parts;  // as many as `parts`
    std::optional<double> expected;
  };
  std::vector<std::string> parts;
  std::vector<Row> rows;
  std::string expected_name;               // of the mark, for the legend
  std::string (*print)(double) = nullptr;  // of a total
};

std::string stacked_bars_html(const StackedBars& bars);

}  // namespace tessera::report
