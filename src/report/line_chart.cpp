#include "report/line_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "report/html.h"

namespace tessera::report {
namespace {

constexpr double kWidth = 860, kHeight = 260, kLeft = 60, kRight = 16, kTop = 14, kBottom = 40;

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();
  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  void widen(double share) {
    if (low > high) low = 0, high = 1;
    double margin = high > low ? (high - low) * share : std::max(std::abs(high) * share, 1e-9);
    low -= margin;
    high += margin;
  }
};

// Data coordinates to those of the drawing.
struct Frame {
  Range x, y;
  double px(double value) const {
    return kLeft + (value - x.low) / (x.high - x.low) * (kWidth - kLeft - kRight);
  }
  double py(double value) const {
    return kHeight - kBottom - (value - y.low) / (y.high - y.low) * (kHeight - kTop - kBottom);
  }
};

Frame frame_of(const LineChart& chart) {
  Frame frame;
  for (const auto& series : chart.series) {
    for (const auto& [x, y] : series.points) {
      frame.x.add(x);
      frame.y.add(y);
    }
  }
  for (const auto& mark : chart.horizontal) frame.y.add(mark.at);
  for (const auto& mark : chart.vertical) frame.x.add(mark.at);
  if (chart.from_zero) frame.y.add(0);
  frame.x.widen(0.01);
  frame.y.widen(0.06);
  if (chart.from_zero) frame.y.low = 0;
  return frame;
}

std::string axes_svg(const LineChart& chart, const Frame& frame) {
  std::string svg;
  for (double tick : axis_ticks(frame.y.low, frame.y.high, 5))
    svg += fmt::format(
        "<line class=\"grid\" x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>"
        "<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n",
        kLeft, kWidth - kRight, frame.py(tick), frame.py(tick), kLeft - 6, frame.py(tick) + 4,
        number_text(tick));
  for (double tick : axis_ticks(frame.x.low, frame.x.high, 8))
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n", frame.px(tick),
                       kHeight - kBottom + 16, number_text(tick));
  svg += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
                     (kLeft + kWidth - kRight) / 2, kHeight - 6, escape(chart.x_name));
  return svg;
}

std::string series_svg(const LineChart::Series& series, size_t index, const Frame& frame) {
  std::string path, dots;
  for (const auto& [x, y] : series.points) {
    path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", frame.px(x), frame.py(y));
    if (series.dots)
      dots += fmt::format("<circle class=\"dot s{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\"/>", index + 1,
                          frame.px(x), frame.py(y));
  }
  return fmt::format("<path class=\"line s{}\" d=\"{}\"/>{}\n", index + 1, path, dots);
}

std::string marks_svg(const LineChart& chart, const Frame& frame) {
  std::string svg;
  for (const auto& mark : chart.horizontal)
    svg += fmt::format(
        "<line class=\"mark\" x1=\"{0}\" x2=\"{1}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/>"
        "<text x=\"{3}\" y=\"{4:.1f}\" text-anchor=\"end\">{5}</text>\n",
        kLeft, kWidth - kRight, frame.py(mark.at), kWidth - kRight - 4, frame.py(mark.at) - 5,
        escape(mark.label));
  for (const auto& mark : chart.vertical)
    svg += fmt::format(
        "<line class=\"alarm\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\"/>"
        "<text class=\"alarm\" x=\"{3:.1f}\" y=\"{4}\">{5}</text>\n",
        frame.px(mark.at), kTop, kHeight - kBottom, frame.px(mark.at) + 4, kTop + 10, escape(mark.label));
  return svg;
}

// Columns of one x axis and one y per series, null where a series has no point: what uPlot takes.
nlohmann::json chart_data(const LineChart& chart) {
  std::vector<double> xs;
  for (const auto& series : chart.series)
    for (const auto& point : series.points) xs.push_back(point.first);
  std::sort(xs.begin(), xs.end());
  xs.erase(std::unique(xs.begin(), xs.end()), xs.end());
  nlohmann::json data = {{"x_name", chart.x_name},
                         {"y_name", chart.y_name},
                         {"columns", {xs}},
                         {"from_zero", chart.from_zero},
                         {"series", nlohmann::json::array()}};
  for (const auto& series : chart.series) {
    nlohmann::json column(std::vector<nlohmann::json>(xs.size()));
    for (const auto& [x, y] : series.points) {
      auto place = std::lower_bound(xs.begin(), xs.end(), x) - xs.begin();
      column[static_cast<size_t>(place)] = y;
    }
    data["columns"].push_back(column);
    data["series"].push_back({{"name", series.name}, {"dots", series.dots}});
  }
  for (const auto& mark : chart.horizontal)
    data["horizontal"].push_back({{"at", mark.at}, {"label", mark.label}});
  for (const auto& mark : chart.vertical) data["vertical"].push_back({{"at", mark.at}, {"label", mark.label}});
  return data;
}

}  // namespace

std::vector<double> axis_ticks(double low, double high, int count) {
  double rough = (high - low) / count;
  double power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = power * 10;
  for (double multiple : {5.0, 2.0, 1.0})
    if (power * multiple >= rough * 0.999) step = power * multiple;
  std::vector<double> ticks;
  for (auto i = static_cast<int64_t>(std::ceil(low / step)); static_cast<double>(i) * step <= high; ++i)
    ticks.push_back(static_cast<double>(i) * step);
  return ticks;
}

std::string line_chart_html(const LineChart& chart) {
  Frame frame = frame_of(chart);
  std::vector<std::string> names;
  std::string lines;
  for (size_t i = 0; i < chart.series.size(); ++i) {
    names.push_back(chart.series[i].name);
    lines += series_svg(chart.series[i], i, frame);
  }
  std::string data = chart_data(chart).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return fmt::format(
      "<figure class=\"chart\"><figcaption>{}</figcaption>{}"
      "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n{}{}{}</svg>"
      "<script type=\"application/json\">{}</script></figure>\n",
      escape(chart.y_name), legend_html(names), kWidth, kHeight, escape(chart.y_name), axes_svg(chart, frame),
      lines, marks_svg(chart, frame), escape_script(data));
}

}  // namespace tessera::report
