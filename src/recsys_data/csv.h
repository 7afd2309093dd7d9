// Text files with one row per line and named columns, read by a schema into a Table.
//
//   Schema schema{.label = {"income", ">50K", "<=50K"}, .numeric = {"age"}, .categorical = {{"workclass"}}};
//   TESSERA_ASSIGN_OR_RETURN(Table table, read_csv("adult.data", schema));
//
// Fields may be quoted with '"' (doubled inside); blanks around a field do not count. Without a header line the
// schema names the columns itself. Columns that the schema does not mention are passed over.
// Errors name file, line and column: a wrong number of fields, a label that is neither value or not finite, a
// number that is none, an index outside its range.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "recsys_data/encoding.h"
#include "recsys_data/table.h"

namespace tessera::recsys_data {

struct LabelColumn {
  std::string name;                            // "": the file has no labels; rows get 0
  std::string positive = "1", negative = "0";  // a full stop behind either is passed over, as in adult.test
};

struct SlotColumn {
  std::string name;
  // 0: any text, whose id is 1 + 56 bits of its XXH3 hash. Else whole numbers in [0, cardinality), id 1 +
  // number.
  int64_t cardinality = 0;
  char inner_separator = 0;  // several values in one field (multi-hot); 0: one
};

struct Schema {
  LabelColumn label;
  std::vector<std::string> numeric;
  std::vector<SlotColumn> categorical;
  std::string time;                              // column that orders rows, as text; "": none
  std::vector<std::string> columns;              // names in order of a file without a header; empty: it has one
  std::vector<std::string> missing = {"", "?"};  // number 0, id 0
  char separator = ',';
  char comment = 0;  // lines that start with it are passed over; 0: none
};

Result<Table> read_csv(const std::filesystem::path& path, const Schema& schema);

}  // namespace tessera::recsys_data
