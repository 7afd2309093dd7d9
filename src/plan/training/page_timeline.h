// The pipeline of one prediction as boxes to draw: what each stage does when, from the table of its schedule.
// Threads: reentrant.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "plan/training/gpu_search.h"

namespace tessera::plan {

struct PipelineTimeline {
  int64_t micro_batches = 0;  // drawn: fewer than the step has where boxes would be too many
  int64_t chunks = 1;         // of the model on a stage
  Schedule schedule;
  std::vector<std::vector<ActionSpan>> spans;  // in the table's shape
};

// Nothing for a schedule that has no table.
std::optional<PipelineTimeline> pipeline_timeline(const GpuPrediction& prediction);
// {"chunks", "end", "stages": [[[kind, chunk, micro-batch, start, end, paired], ...], ...]}, seconds.
nlohmann::json timeline_json(const PipelineTimeline& timeline);

}  // namespace tessera::plan
