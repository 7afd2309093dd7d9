#include <numeric>

#include "recsys_data/csv.h"
#include "recsys_data/public_sets.h"
#include "recsys_data/scan.h"
#include "recsys_data/text_input.h"

namespace tessera::recsys_data {
namespace {

const std::vector<std::string> kColumns = {
    "age",          "workclass", "fnlwgt", "education",    "education-num", "marital-status", "occupation",
    "relationship", "race",      "sex",    "capital-gain", "capital-loss",  "hours-per-week", "native-country",
    "income"};

// Copies of the set differ: UCI's has no header (and a comment on top of adult.test), others add one whose
// label has another name.
Result<std::vector<std::string>> header_of(const std::filesystem::path& path) {
  TESSERA_ASSIGN_OR_RETURN(auto input, TextInput::open(path));
  TESSERA_ASSIGN_OR_RETURN(std::string_view piece, input->next());
  std::vector<std::string> names;
  if (!piece.starts_with("age")) return names;
  std::string_view line = piece.substr(0, piece.find('\n'));
  while (!line.empty()) {
    size_t stop = std::min(line.find(','), line.size());
    names.emplace_back(trimmed(line.substr(0, stop)));
    line.remove_prefix(std::min(stop + 1, line.size()));
  }
  return names;
}

Result<Table> read_file(const std::filesystem::path& path) {
  TESSERA_ASSIGN_OR_RETURN(auto header, header_of(path));
  Schema schema{.label = {header.empty() ? kColumns.back() : header.back(), ">50K", "<=50K"}, .comment = '|'};
  if (header.empty()) schema.columns = kColumns;
  schema.numeric = {"age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week"};
  for (const char* name : {"workclass", "education", "marital-status", "occupation", "relationship", "race",
                           "sex", "native-country"})
    schema.categorical.push_back({name});
  return read_csv(path, schema);
}

}  // namespace

Result<TrainTest> read_adult(const std::filesystem::path& folder) {
  for (const char* name : {"adult.data", "adult.test"})
    if (!std::filesystem::exists(folder / name))
      return make_error(
          ErrorCode::not_found,
          "{}: there is no {}; set data.path to a folder with adult.data and adult.test (UCI Machine "
          "Learning Repository, Adult, doi 10.24432/C5XW20)",
          folder.string(), name);
  TESSERA_ASSIGN_OR_RETURN(Table train, read_file(folder / "adult.data"));
  TESSERA_ASSIGN_OR_RETURN(Table test, read_file(folder / "adult.test"));
  std::vector<int64_t> fit(static_cast<size_t>(train.rows()));
  std::iota(fit.begin(), fit.end(), 0);
  Table* others[] = {&test};
  standardise(train, fit, others);
  return TrainTest{std::make_shared<Table>(std::move(train)), std::make_shared<Table>(std::move(test))};
}

}  // namespace tessera::recsys_data
