// How long a pipeline of stages works on the micro-batches of one step. Closed forms for the search, and the
// recurrence over the table of actions that they must agree with.
//
// Times are seconds of one micro-batch on one stage, all its chunks together: forward, backward for the input,
// backward for the weights. Closed forms: Narayanan et al. 2021 (1F1B, interleaved), Qi et al. 2023 (ZB-H1,
// ZB-H2, ZB-V), DeepSeek-V3 report, table 2 (DualPipe). Uneven stages: the slowest works without pause, the
// others are met once on the way in and once on the way out (exact for 1F1B and GPipe when one stage dominates,
// a lower bound else).
#pragma once

#include <vector>

#include "plan/training/setup.h"

namespace tessera::plan {

struct PipelineStage {
  double forward = 0, backward_input = 0, backward_weight = 0;
  double total() const { return forward + backward_input + backward_weight; }
};

struct PipelineTime {
  double seconds = 0;
  double bubble = 0;  // of it, in which the slowest stage waits
};

// `count` stages that take the same time.
struct EqualStages {
  PipelineStage time;
  double count = 1;
};

// `send_s`: of one message between neighbours that computation does not hide.
PipelineTime pipeline_closed_form(PipelineKind kind, int64_t virtual_stages, int64_t micro_batches,
                                  const std::vector<EqualStages>& stages, double send_s);
PipelineTime pipeline_closed_form(PipelineKind kind, int64_t virtual_stages, int64_t micro_batches,
                                  const std::vector<PipelineStage>& stages, double send_s);

// One action of a stage: chunk and micro-batch; `weight` only where the schedule runs it apart.
struct PipelineAction {
  enum class Kind { forward, backward, backward_input, backward_weight } kind = Kind::forward;
  int64_t chunk = 0, micro_batch = 0;
};
using PipelineTable = std::vector<std::vector<PipelineAction>>;  // [stage][order]

// Tables of GPipe, 1F1B, interleaved 1F1B (virtual_stages > 1), ZB-H1 and ZB-H2. REQUIRES: interleaved: stages
// divide micro_batches.
PipelineTable pipeline_table(PipelineKind kind, int64_t stages, int64_t virtual_stages, int64_t micro_batches);

// Whether pipeline_table() knows the schedule; the others have closed forms only.
bool has_pipeline_table(PipelineKind kind);

// When each action runs, in the table's shape: it starts when its stage is free and its input has come. Chunk
// times are a stage's divided by the chunks. Empty for a table that waits for itself.
struct PipelineSpan {
  double start = 0, end = 0;
};
std::vector<std::vector<PipelineSpan>> pipeline_spans(const PipelineTable& table, int64_t virtual_stages,
                                                      const std::vector<PipelineStage>& stages, double send_s);

// Seconds from the first to the last action of the stage that takes longest (all of them where the first stage
// is also the last to end; the next step of ZB-H2 starts on a stage before this one has ended on the others).
// Infinity for a table that waits for itself.
double pipeline_recurrence(const PipelineTable& table, int64_t virtual_stages,
                           const std::vector<PipelineStage>& stages, double send_s);

}  // namespace tessera::plan
