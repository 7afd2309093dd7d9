#include "plan/validate/training_case.h"

#include "plan/training/memory.h"

namespace tessera::plan {
namespace {

Result<TrainingPrecision> precision_of(const std::string& text) {
  struct Word {
    const char* part;
    TrainingPrecision precision;
  };
  constexpr Word words[] = {{"NVFP4", TrainingPrecision::nvfp4}, {"FP8-MX", TrainingPrecision::mxfp8},
                            {"MXFP8", TrainingPrecision::mxfp8}, {"blockwise", TrainingPrecision::fp8_block},
                            {"fp8", TrainingPrecision::fp8},     {"FP8", TrainingPrecision::fp8},
                            {"bf16", TrainingPrecision::bf16},   {"BF16", TrainingPrecision::bf16},
                            {"fp16", TrainingPrecision::fp16}};
  // "FP8-CS (FP8-MX)" prints the recipe of another figure in parentheses.
  if (text.starts_with("FP8-CS")) return TrainingPrecision::fp8;
  for (const Word& word : words)
    if (text.find(word.part) != std::string::npos) return word.precision;
  return invalid("column dtype: '{}' is no known precision", text);
}

// A run that a source reports did fit: where the row leaves recomputation open, it used the mildest that fits.
// One that ran out of memory says nothing of the kind.
void recompute_until_it_fits(RowReader& row, TrainingCase& one) {
  auto assumed = one.assumed.find("recompute");
  if (one.out_of_memory || assumed == one.assumed.end() || assumed->second != "none") return;
  auto least = least_recomputation(one.setup, one.cluster.device.memory_bytes);
  if (!least) return;
  one.setup.layout.recompute = *least;
  row.assume("recompute", to_string(*least));
}

Status fill(RowReader& row, TrainingCase& one) {
  TESSERA_ASSIGN_OR_RETURN(one.setup.layout, layout_of_row(row));
  TESSERA_ASSIGN_OR_RETURN(one.setup.model, blueprint_of_row(row));
  TESSERA_ASSIGN_OR_RETURN(one.cluster, cluster_of_row(row));
  TESSERA_ASSIGN_OR_RETURN(one.setup.work.precision, precision_of(row.text("dtype")));
  one.setup.work.seq = row.integer("seq_len");
  one.setup.work.global_batch = row.integer("global_batch");
  std::string software = software_of_row(row, one.setup.options);
  TESSERA_ASSIGN_OR_RETURN(one.software, software_by_name(software));
  one.setup.options.release_year = one.software.year;
  TESSERA_RETURN_IF_ERROR(validate(one.setup));
  recompute_until_it_fits(row, one);
  return {};
}

}  // namespace

bool is_calibration_row(const std::string& id) {
  uint64_t hash = 14695981039346656037ULL;
  for (unsigned char byte : id) hash = (hash ^ byte) * 1099511628211ULL;
  return ((hash >> 32) & 1) == 0;
}

Result<std::vector<TrainingCase>> read_training_cases(const CsvTable& table) {
  for (const char* column : {"id", "source", "model", "gpu", "n_gpus", "seq_len", "global_batch", "tp", "pp",
                             "n_layers", "hidden", "dtype"})
    if (!table.has(column))
      return invalid("{}: no column '{}'; expected the columns of data/published/training_cases.csv",
                     table.name, column);
  std::vector<TrainingCase> cases;
  for (const CsvRow& cells : table.rows) {
    TrainingCase one;
    RowReader row(table, cells, one.assumed);
    one.id = row.text("id"), one.source = row.text("source"), one.gpu = row.text("gpu");
    one.model = row.text("model");
    one.step_time_s = row.number("step_time_s"), one.memory_gib = row.number("memory_gib_per_gpu");
    one.out_of_memory = row.text("outcome") == "out of memory";
    one.newest = !row.mentions("notes", "newer release");
    one.calibration = is_calibration_row(one.id);
    if (Status status = fill(row, one); !status) one.refused = status.error().message;
    cases.push_back(std::move(one));
  }
  return cases;
}

}  // namespace tessera::plan
