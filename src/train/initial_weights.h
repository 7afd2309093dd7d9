// Fresh weights are a pure function of (seed, tensor name, element): any layout starts from the same model.
#pragma once

#include "train/slice.h"

namespace tessera::train {

// Matrices: normal with standard deviation spec.init_range, the projections back into the residual stream (o,
// down) scaled by 1 / sqrt(2 * layers) (Radford et al. 2019); norms: ones. Sets master, clears the moments,
// publishes.
void initialise(model::Unit& unit, const ModelSpec& spec, uint64_t seed);

}  // namespace tessera::train
