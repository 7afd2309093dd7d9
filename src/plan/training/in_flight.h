// Micro-batches whose activations a stage holds at once, at most: what a pipeline schedule costs in memory.
//
// Where a backward comes in two parts, the moments are read off the table of the schedule (ZB-H1, ZB-H2, ZB-V,
// DualPipe): until a weight gradient that was put off is computed, inputs of products and gradients of their
// outputs stay. The others have closed forms, which equal their tables: GPipe holds all; 1F1B pp - stage;
// interleaved 1F1B runs 2 (pp - stage - 1) + (v - 1) pp chunks ahead (Narayanan et al. 2021), which makes
// 1 + (pp - 1) / (pp v) of 1F1B's on the first stage. V-Half (pp / 2 + 1) and V-Min ((pp + 4) / 3) have closed
// forms only (Qi et al. 2024).
#pragma once

#include <vector>

#include "plan/training/setup.h"
#include "schedule/schedule.h"

namespace tessera::plan {

// Whether activations in flight are those of moments_in_flight(); else those of the functions below it.
bool is_held_by_table(PipelineKind kind);
// By stage, the moments at which its memory may be at its peak. Empty where is_held_by_table() is false.
std::vector<std::vector<HeldSlots>> moments_in_flight(const TrainingSetup& setup);
// Micro-batches that the table is read for: more of them hold no more.
int64_t table_micro_batches(const TrainingSetup& setup);

// Micro-batches of a chunk of the stage that are alive at the stage's peak. Never more on a later stage.
// REQUIRES: !is_held_by_table(schedule).
double micro_batches_in_flight(const TrainingSetup& setup, int64_t stage, int64_t chunk);
// Its sum over the chunks of the stage.
double chunks_in_flight(const TrainingSetup& setup, int64_t stage);

}  // namespace tessera::plan
