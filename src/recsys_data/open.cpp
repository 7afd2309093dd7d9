#include "recsys_data/open.h"

#include <algorithm>
#include <charconv>
#include <numeric>

#include "core/nearest.h"
#include "recsys_data/criteo.h"
#include "recsys_data/csv.h"
#include "recsys_data/public_sets.h"

namespace tessera::recsys_data {
namespace {

constexpr int64_t kTestStart = int64_t{1} << 40;  // synthetic rows for tests lie far behind those for training
constexpr int64_t kBestAucRows = 200000;          // more would change its fourth decimal

std::vector<int64_t> range(int64_t from, int64_t to) {
  std::vector<int64_t> rows(static_cast<size_t>(to - from));
  std::iota(rows.begin(), rows.end(), from);
  return rows;
}

TableOrder training_order(const DataOptions& options, std::vector<int64_t> picks = {}) {
  return {.picks = std::move(picks), .shuffle = options.shuffle, .seed = options.seed};
}

Result<Splits> open_adult(const DataOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(TrainTest data, read_adult(options.path));
  Splits splits;
  splits.train = make_table_source(data.train, training_order(options));
  splits.test = make_table_source(data.test, {});
  return splits;
}

struct Cuts {
  int64_t train, valid;  // rows before the validation part, and before the test part
};
Result<Cuts> cuts_of(const DataOptions& options, int64_t rows) {
  if (options.valid < 0 || options.test < 0 || options.valid + options.test >= 1)
    return invalid("data.valid={} and data.test={}: expected both at least 0 and together below 1",
                   options.valid, options.test);
  auto at = [&](double share) { return static_cast<int64_t>(static_cast<double>(rows) * share); };
  return Cuts{at(1 - options.valid - options.test), at(1 - options.test)};
}

// A table whose rows are in order: the last shares are held out.
Result<Splits> split_in_order(Table table, const DataOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(Cuts cuts, cuts_of(options, table.rows()));
  if (cuts.train == 0) return invalid("{}: no rows are left for training", options.path);
  auto fit = range(0, cuts.train);
  if (options.standardise) standardise(table, fit);
  const int64_t rows = table.rows();
  auto shared = std::make_shared<Table>(std::move(table));
  Splits splits;
  splits.train = make_table_source(shared, training_order(options, std::move(fit)));
  if (cuts.valid > cuts.train)
    splits.valid = make_table_source(shared, {.picks = range(cuts.train, cuts.valid)});
  if (rows > cuts.valid) splits.test = make_table_source(shared, {.picks = range(cuts.valid, rows)});
  return splits;
}

Result<Splits> open_bandit(const DataOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(Table table, read_open_bandit(options.path));
  return split_in_order(std::move(table), options);
}

Result<Splits> open_criteo(const DataOptions& options) {
  CriteoSplits parts;
  if (options.kind == "criteo_kaggle") {
    TESSERA_ASSIGN_OR_RETURN(parts, split_criteo_kaggle(options.path, options.valid, options.test));
  } else {
    TESSERA_ASSIGN_OR_RETURN(parts, split_criteo_terabyte(options.path));
  }
  if (!options.test_path.empty()) parts.test = {{options.test_path, {}}};
  Splits splits;
  splits.train = make_criteo_source(std::move(parts.train));
  if (!parts.valid.empty()) splits.valid = make_criteo_source(std::move(parts.valid));
  if (!parts.test.empty()) splits.test = make_criteo_source(std::move(parts.test));
  return splits;
}

Result<char> one_character(const char* key, const std::string& text) {
  if (text == "\\t" || text == "tab") return '\t';
  if (text.size() == 1) return text[0];
  return invalid("{}: got '{}', expected one character (or tab)", key, text);
}

Result<SlotColumn> slot_column(const std::string& text, char inner_separator) {
  SlotColumn column{.name = text, .inner_separator = inner_separator};
  size_t colon = text.rfind(':');
  if (colon == std::string::npos) return column;
  column.name = text.substr(0, colon);
  const char *from = text.data() + colon + 1, *to = text.data() + text.size();
  auto [stop, failure] = std::from_chars(from, to, column.cardinality);
  if (failure != std::errc() || stop != to || column.cardinality < 1)
    return invalid("column '{}': expected NAME, or NAME:N with a whole number N of ids", text);
  return column;
}

Result<Schema> schema_of(const DataOptions& options) {
  if (options.label.empty()) return invalid("data.label is missing: name the column with the label");
  Schema schema{.label = {options.label, options.positive, options.negative}};
  schema.time = options.time;
  schema.numeric = options.numeric;
  TESSERA_ASSIGN_OR_RETURN(schema.separator, one_character("data.separator", options.separator));
  TESSERA_ASSIGN_OR_RETURN(char inner, one_character("data.inner_separator", options.inner_separator));
  for (const auto& text : options.categorical) {
    TESSERA_ASSIGN_OR_RETURN(auto column, slot_column(text, 0));
    schema.categorical.push_back(column);
  }
  for (const auto& text : options.multi_hot) {
    TESSERA_ASSIGN_OR_RETURN(auto column, slot_column(text, inner));
    schema.categorical.push_back(column);
  }
  return schema;
}

Table in_order_of_time(Table table) {
  Table ordered{.features = table.features, .encodings = table.encodings};
  gather_rows(table.all, order_by_time(table), table.features.numeric.size(), ordered.all);
  return ordered;
}

Result<Splits> open_csv(const DataOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(Schema schema, schema_of(options));
  TESSERA_ASSIGN_OR_RETURN(Table table, read_csv(options.path, schema));
  if (!schema.time.empty()) table = in_order_of_time(std::move(table));
  if (options.test_path.empty()) return split_in_order(std::move(table), options);
  TESSERA_ASSIGN_OR_RETURN(Table test, read_csv(options.test_path, schema));
  Table* others[] = {&test};
  if (options.standardise) standardise(table, range(0, table.rows()), others);
  Splits splits;
  splits.train = make_table_source(std::make_shared<Table>(std::move(table)), training_order(options));
  splits.test = make_table_source(std::make_shared<Table>(std::move(test)), {});
  return splits;
}

Result<std::vector<int64_t>> slot_sizes(const DataOptions& options) {
  std::vector<int64_t> sizes;
  if (options.slots.starts_with("mlperf")) {
    for (int64_t size : mlperf_cardinalities())
      sizes.push_back(std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(size) * options.scale)));
    return sizes;
  }
  for (const char *at = options.slots.data(), *end = at + options.slots.size(); at < end; ++at) {
    int64_t size = 0;
    auto [stop, failure] = std::from_chars(at, end, size);
    if (failure != std::errc() || (stop < end && *stop != ','))
      return invalid("data.slots='{}': expected mlperf, mlperf-multi-hot, or sizes such as 1000,1000,20",
                     options.slots);
    sizes.push_back(size);
    at = stop;
  }
  return sizes;
}

Result<Splits> open_synthetic(const DataOptions& options) {
  SyntheticOptions stream{.numbers = options.numbers,
                          .exponent = options.exponent,
                          .signal = options.signal,
                          .number_signal = options.number_signal,
                          .bias = options.bias,
                          .seed = options.seed};
  TESSERA_ASSIGN_OR_RETURN(stream.cardinalities, slot_sizes(options));
  if (options.slots == "mlperf-multi-hot") stream.ids_per_row = mlperf_ids_per_row();
  TESSERA_RETURN_IF_ERROR(validate(stream));
  if (options.train_rows < 1 || options.test_rows < 0)
    return invalid("data.train_rows={} data.test_rows={}: expected at least 1 and 0", options.train_rows,
                   options.test_rows);
  Splits splits;
  splits.train = make_synthetic_source(stream, 0, options.train_rows);
  splits.test = make_synthetic_source(stream, kTestStart, options.test_rows);
  if (options.test_rows > 0)
    splits.best_auc = best_auc(stream, kTestStart, std::min(options.test_rows, kBestAucRows));
  return splits;
}

}  // namespace

Result<Splits> open_data(const DataOptions& options) {
  if (options.kind == "synthetic") return open_synthetic(options);
  const std::vector<std::string> kinds = {"adult",           "open_bandit", "criteo_kaggle",
                                          "criteo_terabyte", "csv",         "synthetic"};
  if (std::find(kinds.begin(), kinds.end(), options.kind) == kinds.end())
    return invalid(
        "data.kind: got '{}', expected adult, open_bandit, criteo_kaggle, criteo_terabyte, csv or "
        "synthetic{}",
        options.kind, did_you_mean(options.kind, kinds));
  if (options.path.empty())
    return invalid("data.path is missing: add data.path=DIR, where the {} data lies", options.kind);
  if (options.kind == "adult") return open_adult(options);
  if (options.kind == "open_bandit") return open_bandit(options);
  if (options.kind == "csv") return open_csv(options);
  return open_criteo(options);
}

}  // namespace tessera::recsys_data
