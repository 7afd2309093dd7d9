#include "report/stacked_bars.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "report/html.h"

namespace tessera::report {
namespace {

constexpr double kWidth = 860, kLeft = 90, kRight = 90, kRow = 28;

double total_of(const StackedBars::Row& row) {
  return std::accumulate(row.parts.begin(), row.parts.end(), 0.0);
}

}  // namespace

std::string stacked_bars_html(const StackedBars& bars) {
  double highest = 1e-12;
  for (const auto& row : bars.rows) highest = std::max({highest, total_of(row), row.expected.value_or(0)});
  double scale = (kWidth - kLeft - kRight) / highest;
  std::string svg;
  for (size_t i = 0; i < bars.rows.size(); ++i) {
    const auto& row = bars.rows[i];
    double top = static_cast<double>(i) * kRow, left = kLeft;
    svg += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n", kLeft - 8, top + 18,
                       escape(row.name));
    for (size_t part = 0; part < row.parts.size(); ++part) {
      double width = row.parts[part] * scale;
      // A gap of a pixel keeps neighbours apart for those who do not tell the colours.
      svg += fmt::format(
          "<rect class=\"bar s{}\" x=\"{:.1f}\" y=\"{}\" width=\"{:.1f}\" height=\"18\"><title>{}: "
          "{}</title></rect>\n",
          part % 8 + 1, left, top + 5, std::max(width - 1, 0.0), escape(bars.parts[part]),
          bars.print(row.parts[part]));
      left += width;
    }
    if (row.expected)
      svg += fmt::format("<line class=\"expected\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\"/>\n",
                         kLeft + *row.expected * scale, top + 1, top + 27);
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{}\">{}</text>\n",
                       std::max(left, kLeft + row.expected.value_or(0) * scale) + 6, top + 18,
                       bars.print(total_of(row)));
  }
  std::string mark = bars.expected_name.empty()
                         ? ""
                         : fmt::format("<p class=\"legend\"><span><i class=\"key expected\"></i>{}</span></p>",
                                       escape(bars.expected_name));
  return fmt::format(
      "<figure>{}{}<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"bars\">\n{}</svg></figure>\n",
      legend_html(bars.parts), mark, kWidth, static_cast<double>(bars.rows.size()) * kRow + 4, svg);
}

}  // namespace tessera::report
