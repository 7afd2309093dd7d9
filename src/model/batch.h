// One micro-batch on this rank: every rank of a replica knows all its tokens; layers cut what they need.
#pragma once

#include "data/sample.h"
#include "model/tensors.h"

namespace tessera::model {

struct Batch {
  Tensor tokens, targets, positions;  // int64 [T]
  Tensor starts;                      // int32 [T], index within the micro-batch of the first visible token
};

// Sequences back to back; `starts` of later ones move by their place.
Batch make_batch(const std::vector<data::Sample>& samples);

}  // namespace tessera::model
