// A matrix as coloured cells around 1: above is one colour, below the other, 1 is none; as SVG.
#pragma once

#include <string>
#include <vector>

namespace tessera::report {

struct HeatMap {
  std::vector<std::string> rows, columns;
  std::vector<std::vector<double>> values;  // [row][column], ratios to the balanced value
  std::string column_name;
};

std::string heat_map_html(const HeatMap& map);

}  // namespace tessera::report
