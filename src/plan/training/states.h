// Weights, gradients and optimizer states that one rank of a stage owns.
//
// Three kinds of elements, each with its own divisors: split by tp; whole on every tp rank (norms, routers,
// latent projections); experts, split by ep * etp and sharded over fewer ranks. Bytes of one parameter with
// Adam in 16 bits: 2 weights + 4 gradient + 12 states in Megatron; ZeRO-1, 2 and 3 divide 12, 16 and all 18 by
// their ranks (Rajbhandari et al. 1910.02054). PyTorch's FSDP keeps float32 shards: 4 + 4 + 8, all divided.
#pragma once

#include "plan/training/setup.h"

namespace tessera::plan {

// Elements of one rank before any data-parallel sharding.
struct StageElements {
  double dense = 0, experts = 0;
  double largest_layer = 0;  // of the dense and expert elements of one layer: the unit that FSDP gathers
  double total() const { return dense + experts; }
  void add(const StageElements& layer, double times);
};
StageElements layer_elements(const TrainingSetup& setup, const Layer& layer);

// Weights outside the layers. A tied head on another stage than the embedding has its own copy.
struct EndElements {
  double embedding = 0;
  double last = 0;                   // norm and head, on a stage without the embedding
  double last_beside_embedding = 0;  // on a stage with it
  double of(bool has_embedding, bool has_head) const;
};
EndElements end_elements(const TrainingSetup& setup);
// Elements of a weight on one rank.
double rank_elements(const TrainingSetup& setup, const Weight& weight);

struct StateBytes {
  double parameters = 0, gradients = 0, optimizer = 0;
  double total() const { return parameters + gradients + optimizer; }
};
StateBytes state_bytes(const TrainingSetup& setup, const StageElements& elements);

}  // namespace tessera::plan
