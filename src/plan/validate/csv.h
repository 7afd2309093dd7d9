// A table of comma-separated values (RFC 4180: quoted fields may hold commas, quotes and line breaks) whose
// first row names the columns.
//
// Errors name the line. Threads: values.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace tessera::plan {

struct CsvRow {
  int line = 0;  // of its first character, from 1
  std::vector<std::string> cells;
};

struct CsvTable {
  std::string name;  // of the file, for messages
  std::vector<std::string> columns;
  std::vector<CsvRow> rows;

  bool has(std::string_view column) const;
  // The cell, or "" where the table has no such column.
  const std::string& cell(const CsvRow& row, std::string_view column) const;
  // nullopt: empty or no number.
  std::optional<double> number(const CsvRow& row, std::string_view column) const;
};

// Errors: a row with another number of cells than the header, an open quote, no header.
Result<CsvTable> parse_csv(std::string_view text, std::string name);

}  // namespace tessera::plan
