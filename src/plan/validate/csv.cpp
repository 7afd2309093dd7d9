#include "plan/validate/csv.h"

#include <algorithm>
#include <charconv>

namespace tessera::plan {
namespace {

// Reads one record at `at` and moves it behind the record's end of line.
Status read_record(std::string_view text, size_t& at, int& line, const std::string& name, CsvRow& row) {
  row.line = line;
  row.cells.assign(1, "");
  bool quoted = false;
  for (; at < text.size(); ++at) {
    char c = text[at];
    if (c == '\n') ++line;
    if (quoted) {
      if (c != '"')
        row.cells.back() += c;
      else if (at + 1 < text.size() && text[at + 1] == '"')
        row.cells.back() += text[++at];
      else
        quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == ',') {
      row.cells.emplace_back();
    } else if (c == '\n') {
      ++at;
      return {};
    } else if (c != '\r') {
      row.cells.back() += c;
    }
  }
  if (quoted) return invalid("{}:{}: a quoted field does not end", name, row.line);
  return {};
}

}  // namespace

bool CsvTable::has(std::string_view column) const {
  return std::find(columns.begin(), columns.end(), column) != columns.end();
}

const std::string& CsvTable::cell(const CsvRow& row, std::string_view column) const {
  static const std::string empty;
  auto found = std::find(columns.begin(), columns.end(), column);
  if (found == columns.end()) return empty;
  return row.cells[static_cast<size_t>(found - columns.begin())];
}

std::optional<double> CsvTable::number(const CsvRow& row, std::string_view column) const {
  const std::string& text = cell(row, column);
  double value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Result<CsvTable> parse_csv(std::string_view text, std::string name) {
  CsvTable table{.name = std::move(name), .columns = {}, .rows = {}};
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  size_t at = 0;
  int line = 1;
  CsvRow header;
  TESSERA_RETURN_IF_ERROR(read_record(text, at, line, table.name, header));
  table.columns = std::move(header.cells);
  if (table.columns.size() < 2) return invalid("{}: the first line names no columns", table.name);
  while (at < text.size()) {
    CsvRow row;
    TESSERA_RETURN_IF_ERROR(read_record(text, at, line, table.name, row));
    if (row.cells.size() == 1 && row.cells[0].empty()) continue;
    if (row.cells.size() != table.columns.size())
      return invalid("{}:{}: {} cells but the header names {} columns", table.name, row.line, row.cells.size(),
                     table.columns.size());
    table.rows.push_back(std::move(row));
  }
  return table;
}

}  // namespace tessera::plan
