// One published training run as a row of training_cases.csv: what was run (a TrainingSetup on a GpuCluster with
// a software generation), and what was measured. Only inputs of the row enter the setup; what a row leaves open
// is assumed, and the assumption is named.
//
// Columns: data/published/training_cases.md. Errors: a row that cannot be predicted is returned with the
// reason, not dropped. Threads: values.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "plan/hardware/gpu_cluster.h"
#include "plan/training/setup.h"
#include "plan/training/software.h"
#include "plan/validate/csv.h"

namespace tessera::plan {

struct TrainingCase {
  std::string id, source, gpu, model;
  std::string refused;  // "" or why it cannot be predicted
  TrainingSetup setup;
  GpuCluster cluster;
  SoftwareGeneration software;
  std::map<std::string, std::string> assumed;     // column -> value taken
  std::optional<double> step_time_s, memory_gib;  // published
  bool out_of_memory = false;                     // column outcome: it did not run
  bool newest = true;                             // no newer release of the same configuration is in the table
  bool calibration = false;  // the part that constants may be fitted on; the rest is the test part
};

// Errors: a missing column.
Result<std::vector<TrainingCase>> read_training_cases(const CsvTable& table);

// Half of all rows, by a hash of the id: SHA-like stability across machines and versions (FNV-1a, 64 bit).
bool is_calibration_row(const std::string& id);

// ---- the three parts of a row, in files of their own ----
class RowReader;
Result<Blueprint> blueprint_of_row(RowReader& row);
Result<TrainingLayout> layout_of_row(RowReader& row);
Result<GpuCluster> cluster_of_row(RowReader& row);
// Options and the name of the software generation.
std::string software_of_row(RowReader& row, TrainingOptions& options);

// Cells of one row, and what was assumed for the empty ones.
class RowReader {
 public:
  RowReader(const CsvTable& table, const CsvRow& row, std::map<std::string, std::string>& assumed)
      : table_(table), row_(row), assumed_(assumed) {}
  const std::string& text(const char* column) const { return table_.cell(row_, column); }
  bool empty(const char* column) const { return text(column).empty(); }
  bool mentions(const char* column, std::string_view part) const {
    return text(column).find(part) != std::string::npos;
  }
  // A column that must hold a positive number, and what is not known without it.
  Status positive(const char* column, const char* unknown) const {
    if (integer(column) > 0) return {};
    if (empty(column)) return invalid("column {} is empty: {} is unknown", column, unknown);
    return invalid("column {}: got '{}', expected a positive number", column, text(column));
  }
  // 0 where the cell is empty or no number.
  int64_t integer(const char* column) const {
    return static_cast<int64_t>(table_.number(row_, column).value_or(0));
  }
  int64_t integer_or(const char* column, int64_t fallback) {
    if (table_.number(row_, column)) return integer(column);
    assumed_[column] = std::to_string(fallback);
    return fallback;
  }
  std::optional<double> number(const char* column) const { return table_.number(row_, column); }
  void assume(const std::string& column, const std::string& value) { assumed_[column] = value; }

 private:
  const CsvTable& table_;
  const CsvRow& row_;
  std::map<std::string, std::string>& assumed_;
};

}  // namespace tessera::plan
