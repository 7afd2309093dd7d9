// What the lines of metrics.jsonl and events.jsonl say once repeated steps are sorted out.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "report/line_chart.h"
#include "report/run_files.h"

namespace tessera::report {

// A recovery takes steps back and does them again: the last line of a step counts, earlier ones were lost work.
struct Steps {
  std::vector<const Json*> kept;    // by rising step
  std::vector<const Json*> redone;  // lost with the state that they had reached
};
Steps sort_steps(const std::vector<Json>& metrics);

// A key over the steps that have it.
LineChart::Series series_of(const Steps& steps, std::string name, std::string_view key);

// Median of a key over the kept steps, without the first two of each generation (caches and pools are cold).
std::optional<double> steady_median(const Steps& steps, std::string_view key);

// Entropy of the training tokens' frequencies, from run.json or from what `tessera data pack` wrote.
std::optional<double> unigram_entropy(const RunFiles& files);

struct Evaluation {
  int64_t step = 0;
  double loss = 0;
};
std::optional<Evaluation> last_evaluation(const Steps& steps);

// The prediction of the layout that ran; else of the first layout of the plan. Null when there is none.
const Json* prediction_of(const RunFiles& files);
bool same_layout(const Json& planned, const std::string& ran);

// Highest live bytes of each rank, from memory.json, else from the last step; empty when unknown.
std::vector<double> peak_bytes(const RunFiles& files);
// Of those, what snapshots and checkpoints held besides the step itself; 0 when unknown.
double copied_bytes(const RunFiles& files, size_t rank);
// Predicted peak of a rank, in bytes: of its pipeline stage, else the overall peak.
std::optional<double> predicted_peak_bytes(const RunFiles& files, size_t rank);

}  // namespace tessera::report
