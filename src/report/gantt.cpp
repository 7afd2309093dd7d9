#include "report/gantt.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "report/html.h"
#include "report/line_chart.h"

namespace tessera::report {
namespace {

constexpr double kWidth = 860, kLeft = 110, kRight = 12, kTop = 20, kRow = 22, kBottom = 24;

struct Scale {
  double begin = 0, end = 1;
  double operator()(double seconds) const {
    return kLeft + (seconds - begin) / (end - begin) * (kWidth - kLeft - kRight);
  }
};

Scale scale_of(const Gantt& gantt) {
  Scale scale{std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()};
  for (const auto& bar : gantt.bars) {
    scale.begin = std::min(scale.begin, bar.begin_s);
    scale.end = std::max(scale.end, bar.end_s);
  }
  for (const auto& mark : gantt.marks) {
    scale.begin = std::min(scale.begin, mark.at_s);
    scale.end = std::max(scale.end, mark.at_s);
  }
  if (!(scale.begin < scale.end)) scale.end = scale.begin + 1;
  return scale;
}

std::string bar_svg(const Gantt::Bar& bar, const Scale& scale) {
  double left = scale(bar.begin_s), width = std::max(scale(bar.end_s) - left, 0.4);
  return fmt::format(
      "<rect class=\"bar s{}\" x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" "
      "height=\"{}\"><title>{}</title></rect>\n",
      bar.kind % 8 + 1, left, kTop + static_cast<double>(bar.row) * kRow + 2, width, kRow - 4,
      escape(bar.note));
}

}  // namespace

std::string gantt_html(const Gantt& gantt) {
  Scale scale = scale_of(gantt);
  double bottom = kTop + static_cast<double>(gantt.rows.size()) * kRow;
  std::string svg;
  for (double tick : axis_ticks(scale.begin, scale.end, 8))
    svg += fmt::format(
        "<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\"/>"
        "<text x=\"{0:.1f}\" y=\"{3}\" text-anchor=\"middle\">{4}</text>\n",
        scale(tick), kTop, bottom, bottom + 16, tick == 0 ? "0" : seconds_text(tick));
  for (size_t row = 0; row < gantt.rows.size(); ++row)
    svg += fmt::format("<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n", kLeft - 8,
                       kTop + (static_cast<double>(row) + 0.5) * kRow + 4, escape(gantt.rows[row]));
  for (const auto& bar : gantt.bars) svg += bar_svg(bar, scale);
  for (const auto& mark : gantt.marks)
    svg += fmt::format(
        "<line class=\"alarm\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\"/>"
        "<text class=\"alarm\" x=\"{0:.1f}\" y=\"{3}\" text-anchor=\"{5}\">{4}</text>\n",
        scale(mark.at_s), kTop - 4, bottom, kTop - 7, escape(mark.label),
        scale(mark.at_s) > kWidth * 0.6 ? "end" : "start");
  return fmt::format(
      "<figure>{}<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"timeline\">\n{}</svg></figure>\n",
      legend_html(gantt.kinds), kWidth, bottom + kBottom, svg);
}

}  // namespace tessera::report
