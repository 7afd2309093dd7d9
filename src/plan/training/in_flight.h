// Micro-batches whose activations a stage holds at once, at most: what a pipeline schedule costs in memory.
//
// GPipe holds all; 1F1B pp - stage; interleaved 1F1B runs 2 (pp - stage - 1) + (v - 1) pp chunks ahead
// (Narayanan et al. 2021), which makes 1 + (pp - 1) / (pp v) of 1F1B's on the first stage; ZB-H1 as 1F1B, ZB-H2
// 2 (pp - stage) - 1 (Qi et al. 2023); ZB-V pp on every stage, V-Half pp / 2 + 1, V-Min (pp + 4) / 3 (Qi et al.
// 2024); DualPipe pp + 1 over both directions.
#pragma once

#include "plan/training/setup.h"

namespace tessera::plan {

// Micro-batches of a chunk of the stage that are alive at the stage's peak. Never more on a later stage.
double micro_batches_in_flight(const TrainingSetup& setup, int64_t stage, int64_t chunk);
// Its sum over the chunks of the stage.
double chunks_in_flight(const TrainingSetup& setup, int64_t stage);

}  // namespace tessera::plan
