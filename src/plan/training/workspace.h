// Temporaries at the moments of a step that can be its peak; bytes beyond states and kept activations.
#pragma once

#include "plan/training/setup.h"

namespace tessera::plan {

// Backward of one layer: gradients of its widest activations, gathered hidden states, scores where no flash
// kernel avoids them. What it recomputes comes on top (layer_activations).
double layer_backward_bytes(const TrainingSetup& setup, const Layer& layer);
// Loss and backward of the head, on the stage that has it.
double head_bytes(const TrainingSetup& setup);
// Placeholder gradients that Transformer Engine keeps, one 16-bit tensor for each distinct shape of a weight
// whose gradient is added inside the product, and one for the head where it is.
struct PlaceholderBytes {
  double layers = 0, head = 0;
};
PlaceholderBytes placeholder_bytes(const TrainingSetup& setup);

}  // namespace tessera::plan
