// Guesses of the model's own multi-token-prediction layer (speculative decoding): the last known token beside
// the hidden state in front of it gives the next one, and so on with the layer's own hidden states. As other
// guesses they are kept as far as they equal the model's choice, so answers are the same without them, bit for
// bit.
//
// The layer's keys lie behind those of the model's blocks, in the same pages, by the same block tables: what
// the cache keeps, shares or moves, it does for both. The key of a token depends on that token and those in
// front, as every other key does. ServedModel::forward_rows() writes the keys of all tokens but the first of an
// entry; that one is written here, from the hidden state that the step before has left. After a hit in the
// prefix cache nobody has that state: the key is made from the token alone, and guesses may be a little worse.
#pragma once

#include "serve/model.h"
#include "serve/sampler.h"

namespace tessera::serve {

// The first token of an entry of a step, at `position` > 0.
struct MtpStart {
  int64_t token = 0, position = 0;
  at::Tensor hidden;  // [hidden size], of the token in front; undefined: not known
  std::vector<batching::BlockId> blocks;
  int64_t guesses = 0;  // of the tokens behind it; the blocks have room for them
  SamplingOptions sampling;
};

// Guesses for each, in the same order. Errors: of a pass.
Result<std::vector<std::vector<int64_t>>> guess_ahead(const ServedModel& model, KvCache& cache,
                                                      std::span<const MtpStart> starts);

}  // namespace tessera::serve
