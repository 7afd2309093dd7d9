// Published serving results as cases that can be predicted: what was run (inputs) and what came out (to
// compare). Two forms of tables are read and told apart by their columns: one row per published operating point
// (data/published/serving_cases.csv), and AIConfigurator's silicon form with one column per degree of the
// layout.
//
// A row that leaves something open gets the most plausible value, named in `assumed`. A row that cannot be
// predicted carries the reason in `refused`; nothing is guessed silently.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "plan/serving/closed_form.h"
#include "plan/validate/csv.h"

namespace tessera::plan::serving {

struct Published {  // 0: not published
  double ttft_ms = 0, tpot_ms = 0, tok_s_gpu = 0;
};

struct ServingCase {
  std::string id, source;
  std::string setup;  // what stays equal along a curve of loads: rows of one setup are split together
  std::string model, device, engine, version;
  std::string label;         // the model's name in the table
  bool all_at_once = false;  // every request is sent at the start and none follows
  bool inferencex = false;   // of that benchmark, whose launch scripts are public
  double nominal_input_tokens = 0, nominal_output_tokens = 0;  // before lengths are drawn
  std::map<std::string, double> constants;  // of the engine, as the run was launched (recipes.h)
  std::string products, experts;            // weight formats; "": as the model is published
  double kv_bytes = 0;                      // 0: the engine's
  bool disaggregated = false;
  WorkerLayout layout;  // aggregated, or the prefill workers
  WorkerLayout decode_layout;
  double workers = 1, decode_workers = 0;
  Traffic traffic;
  Speculation speculation;
  Published published;
  std::string refused;
  std::map<std::string, std::string> assumed;
  bool calibration = false;  // by the hash of `setup`
};

// Errors: a table of neither form.
Result<std::vector<ServingCase>> read_cases(const CsvTable& table);

// The forms, for read_cases.
std::vector<ServingCase> read_silicon_cases(const CsvTable& table);
std::vector<ServingCase> read_published_cases(const CsvTable& table);

// Half of the setups, by a hash that does not depend on the order of rows.
bool in_calibration_part(const std::string& setup);

// Name of a model in the catalogue for what a table calls it: "nvidia/DeepSeek-R1-NVFP4" -> "deepseek-v3".
std::string catalogue_model(const std::string& published_name);

}  // namespace tessera::plan::serving
