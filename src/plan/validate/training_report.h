// Predictions beside what was published: per row, and summed up by source, by device and over all.
//
// Groups of the summary: "all", "newest" (rows without a newer release of their configuration), "calibration",
// "test", "source SOURCE", "gpu GPU", each for the
// metrics step_time_s and memory_gib (the peak as the framework's log reports it). Threads: reentrant.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "plan/training/step_time.h"
#include "plan/validate/summary.h"
#include "plan/validate/training_case.h"

namespace tessera::plan {

struct TrainingCheck {
  TrainingCase published;
  TrainingStep predicted;                        // meaningful when published.refused is empty
  double memory_gib = 0, memory_half_width = 0;  // peak of the fullest stage
  bool fits = true;                              // in the device, with the recomputation of the row
};

// Whether memory says what happened. Rows that are refused for another reason count in neither.
struct MemoryVerdicts {
  int ran = 0, accepted = 0;
  int by_recomputation = 0;  // of the accepted: with one that the row leaves open
  int out_of_memory = 0, refused = 0;
  std::vector<std::string> wrong;  // ids
};

// Rows that the model refuses get their reason.
std::vector<TrainingCheck> check_training(std::vector<TrainingCase> cases);
std::vector<ErrorSummary> summarise_training(const std::vector<TrainingCheck>& checks);
MemoryVerdicts memory_verdicts(const std::vector<TrainingCheck>& checks);

// One line a row: id, published, predicted, error, interval, what was assumed; then the summary.
std::string row_table(const std::vector<TrainingCheck>& checks);
std::string summary_table(const std::vector<ErrorSummary>& summary);
std::string verdict_line(const MemoryVerdicts& verdicts);
// {"rows":[{id, predicted, refused, assumed}], "summary":[...], "verdicts":{...}}
nlohmann::json training_json(const std::vector<TrainingCheck>& checks,
                             const std::vector<ErrorSummary>& summary);

}  // namespace tessera::plan
