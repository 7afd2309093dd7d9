// Lines over a common x axis: drawn as SVG, with the data beside it for the script that replaces the drawing by
// a chart to zoom and read.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace tessera::report {

struct LineChart {
  struct Series {
    std::string name;
    std::vector<std::pair<double, double>> points;  // by rising x
    bool dots = false;                              // few points: draw them
  };
  struct Mark {
    double at = 0;
    std::string label;
  };
  std::string x_name, y_name;
  std::vector<Series> series;
  std::vector<Mark> horizontal, vertical;  // reference lines across the chart
  bool from_zero = false;                  // the y axis starts at 0
};

std::string line_chart_html(const LineChart& chart);

// Round numbers that divide [low, high] into about `count` steps.
std::vector<double> axis_ticks(double low, double high, int count);

}  // namespace tessera::report
