// Small pieces of HTML. Everything that comes from a file goes through escape().
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tessera::report {

std::string escape(std::string_view text);

// JSON for a script element: "</" and "<!--" would end or confuse it.
std::string escape_script(std::string_view json);

// "12.3 ms", "4.56 s", "1:15"; "1.2 MiB"; four significant digits.
std::string seconds_text(double seconds);
std::string bytes_text(double bytes);
std::string number_text(double value);
std::string percent_text(double ratio);  // 0.123 -> "+12.3 %"

struct Table {
  std::vector<std::string> head;               // escaped by table_html()
  std::vector<std::vector<std::string>> rows;  // as well
  size_t text_columns = 1;                     // the first ones are aligned left, the others are numbers
};
std::string table_html(const Table& table);
// A table behind a line that opens it: the numbers of a chart for those who do not see it.
std::string details_html(std::string_view summary, const std::string& body);

// A figure with its name above and a note below.
std::string tile_html(std::string_view name, std::string_view value, std::string_view note = "");

// "nothing to show" with its reason, escaped.
std::string missing_html(std::string_view why);

// One entry per series with its colour: class "s1" to "s8" of the style sheet.
std::string legend_html(const std::vector<std::string>& names);

}  // namespace tessera::report
