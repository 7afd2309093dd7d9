// What a rank of a worker holds: weights, workspace, and the sequences that fit beside them.
// Units: bytes of the fullest rank. Threads: functions.
#pragma once

#include "plan/serving/deployment.h"

namespace tessera::plan::serving {

struct RankMemory {
  double total = 0;    // of the accelerator
  double weights = 0;  // of the first or last stage, whichever is larger
  double workspace = 0;
  double cache = 0;  // left for keys, values and states; below 0: the weights do not fit
  bool fits() const { return cache > 0; }
};
RankMemory rank_memory(const Deployment& deployment);

double rank_weight_bytes(const Deployment& deployment);

// Cache of one sequence that holds `tokens`, windows applied, states in 4 bytes; on one rank.
double sequence_bytes(const Deployment& deployment, double tokens);

// Sequences of `tokens` tokens that an attention rank holds at once (in all pipeline stages together), at most
// the engine's limit.
double max_sequences(const Deployment& deployment, double tokens);

}  // namespace tessera::plan::serving
