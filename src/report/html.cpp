#include "report/html.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

namespace tessera::report {

std::string escape(std::string_view text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string escape_script(std::string_view json) {
  std::string out;
  for (char c : json) out += c == '<' ? std::string("\\u003c") : std::string(1, c);
  return out;
}

std::string number_text(double value) {
  double size = std::abs(value);
  if (size >= 1e15 || (size > 0 && size < 1e-4)) return fmt::format("{:.2e}", value);
  if (size >= 1000) {
    std::string digits = fmt::format("{:.0f}", size), out;
    for (size_t i = 0; i < digits.size(); ++i) {
      if (i > 0 && (digits.size() - i) % 3 == 0) out += ",";
      out += digits[i];
    }
    return (value < 0 ? "-" : "") + out;
  }
  return fmt::format("{:.4g}", value);
}

std::string seconds_text(double seconds) {
  if (seconds < 1e-3) return fmt::format("{:.3g} µs", seconds * 1e6);
  if (seconds < 1) return fmt::format("{:.3g} ms", seconds * 1e3);
  if (seconds < 60) return fmt::format("{:.3g} s", seconds);
  auto whole = static_cast<int64_t>(std::llround(seconds));
  if (whole < 3600) return fmt::format("{}:{:02} min", whole / 60, whole % 60);
  return fmt::format("{}:{:02} h", whole / 3600, whole % 3600 / 60);
}

std::string bytes_text(double bytes) {
  static constexpr std::array units = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  for (; std::abs(bytes) >= 1024 && unit + 1 < units.size(); ++unit) bytes /= 1024;
  return fmt::format("{:.4g} {}", bytes, units[unit]);
}

std::string percent_text(double ratio) {
  return fmt::format("{:+.1f} %", ratio * 100);
}

std::string table_html(const Table& table) {
  auto row_html = [&](const std::vector<std::string>& cells, const char* tag) {
    std::string row = "<tr>";
    for (size_t i = 0; i < cells.size(); ++i)
      row += fmt::format("<{0}{1}>{2}</{0}>", tag, i < table.text_columns ? " class=\"text\"" : "",
                         escape(cells[i]));
    return row + "</tr>\n";
  };
  std::string body;
  for (const auto& row : table.rows) body += row_html(row, "td");
  std::string head = table.head.empty() ? "" : "<thead>" + row_html(table.head, "th") + "</thead>\n";
  return "<div class=\"scroll\"><table>" + head + "<tbody>\n" + body + "</tbody></table></div>\n";
}

std::string details_html(std::string_view summary, const std::string& body) {
  return fmt::format("<details><summary>{}</summary>\n{}</details>\n", escape(summary), body);
}

std::string tile_html(std::string_view name, std::string_view value, std::string_view note) {
  return fmt::format("<div class=\"tile\"><span>{}</span><b>{}</b><span>{}</span></div>\n", escape(name),
                     escape(value), escape(note));
}

std::string missing_html(std::string_view why) {
  return fmt::format("<p class=\"missing\">Not shown: {}.</p>\n", escape(why));
}

std::string legend_html(const std::vector<std::string>& names) {
  std::string legend;
  for (size_t i = 0; i < names.size(); ++i)
    legend += fmt::format("<span><i class=\"key s{}\"></i>{}</span>", i % 8 + 1, escape(names[i]));
  return "<p class=\"legend\">" + legend + "</p>\n";
}

}  // namespace tessera::report
