#include "report/heat_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "report/html.h"

namespace tessera::report {
namespace {

constexpr double kWidth = 860, kLeft = 90, kRight = 12, kRow = 18;

// Strength by the logarithm, full at a factor of 2: twice as many and half as many look equally far.
double strength(double ratio) {
  return std::min(std::abs(std::log2(std::max(ratio, 1e-3))), 1.0);
}

}  // namespace

std::string heat_map_html(const HeatMap& map) {
  double columns = static_cast<double>(std::max<size_t>(map.columns.size(), 1));
  double cell = (kWidth - kLeft - kRight) / columns;
  double bottom = static_cast<double>(map.rows.size()) * kRow;
  std::string svg;
  for (size_t row = 0; row < map.rows.size(); ++row) {
    double top = static_cast<double>(row) * kRow;
    svg += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n", kLeft - 8, top + 13,
                       escape(map.rows[row]));
    for (size_t column = 0; column < map.columns.size(); ++column) {
      double ratio = map.values[row][column];
      svg += fmt::format(
          "<rect class=\"{}\" fill-opacity=\"{:.2f}\" x=\"{:.2f}\" y=\"{}\" width=\"{:.2f}\" height=\"{}\">"
          "<title>{}, {} {}: {:.2f}</title></rect>\n",
          ratio > 1 ? "over" : "under", strength(ratio), kLeft + static_cast<double>(column) * cell, top + 1,
          cell, kRow - 2, escape(map.rows[row]), escape(map.column_name), escape(map.columns[column]), ratio);
    }
  }
  size_t every = std::max<size_t>(1, map.columns.size() / 8);
  for (size_t column = 0; column < map.columns.size(); column += every)
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
                       kLeft + (static_cast<double>(column) + 0.5) * cell, bottom + 16,
                       escape(map.columns[column]));
  return fmt::format(
      "<figure><p class=\"legend\"><span><i class=\"key under\"></i>half the balanced share or less</span>"
      "<span><i class=\"key balanced\"></i>balanced</span>"
      "<span><i class=\"key over\"></i>twice the balanced share or more</span></p>"
      "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"heat map\">\n{}"
      "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text></svg></figure>\n",
      kWidth, bottom + 36, svg, (kLeft + kWidth - kRight) / 2, bottom + 32, escape(map.column_name));
}

}  // namespace tessera::report
