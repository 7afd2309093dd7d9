// How long a pipeline of stages works on the micro-batches of one step: by the recurrence over the table of its
// schedule (schedule/recurrence.h), exact for even and uneven stages, and by closed forms, which a search can
// afford for every layout.
//
// Times are seconds of one micro-batch: forward, backward for the input, backward for the weights. Closed
// forms: Narayanan et al. 2021 (1F1B, interleaved), Qi et al. 2023 (ZB-H1, ZB-H2, ZB-V), Qi et al. 2024
// (V-Half, V-Min), DeepSeek-V3 report, table 2 (DualPipe; exact where forward and backward for the input take
// equally long). Uneven stages: the slowest works without pause, the others are met once on the way in and once
// on the way out (exact for 1F1B and GPipe when one stage dominates, a lower bound else).
#pragma once

#include <vector>

#include "plan/training/setup.h"
#include "schedule/recurrence.h"

namespace tessera::plan {

// Of one micro-batch on one stage, all its chunks together.
using PipelineStage = PieceTime;

struct PipelineTime {
  double seconds = 0;  // busy + bubble + sends
  double busy = 0;     // in which the slowest stage works
  double bubble = 0;   // in which it waits
  double sends = 0;    // more than with messages that take no time
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

// Seconds from the first to the last action of the stage that takes longest (all of them where the first stage
// is also the last to end; the next step of ZB-H2 starts on a stage before this one has ended on the others).
// `of_piece`: the model's pieces in order. Micro-batches beyond some rounds of the pipeline are not run one by
// one: each takes what the last ones took. REQUIRES: has_table(kind), check_table(...) holds.
PipelineTime pipeline_recurrence(PipelineKind kind, int64_t chunks, int64_t micro_batches, int64_t stages,
                                 const std::vector<PieceTime>& of_piece, double send_s);

}  // namespace tessera::plan
