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
  std::string least_recompute;  // where the row leaves it open and it does not fit: the mildest that does
};

// Rows that the model refuses get their reason.
std::vector<TrainingCheck> check_training(std::vector<TrainingCase> cases);
std::vector<ErrorSummary> summarise_training(const std::vector<TrainingCheck>& checks);

// One line a row: id, published, predicted, error, interval, what was assumed; then the summary.
std::string row_table(const std::vector<TrainingCheck>& checks);
std::string summary_table(const std::vector<ErrorSummary>& summary);
// {"rows":[{id, predicted, refused, assumed}], "summary":[...]}
nlohmann::json training_json(const std::vector<TrainingCheck>& checks,
                             const std::vector<ErrorSummary>& summary);

}  // namespace tessera::plan
