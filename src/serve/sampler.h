// From logits to a token. The choice is a pure function of the row, the options and the position of the new
// token, so an answer depends neither on its neighbours nor on when it was computed.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tessera::serve {

struct SamplingOptions {
  double temperature = 1;  // 0: the largest logit (ties: lowest token)
  double top_p = 1;        // keep the smallest set of likeliest tokens with this much probability
  int64_t top_k = 0;       // keep the k likeliest; 0: all
  double min_p = 0;        // keep what is at least so likely as the likeliest times this; before the other two
  uint64_t seed = 0;
};

int64_t sample(std::span<const float> logits, const SamplingOptions& options, int64_t position);

// Uniform in [0, 1): a hash of (seed, counter), without state.
double uniform(uint64_t seed, uint64_t counter);

struct Candidate {
  int64_t token = 0;
  double logprob = 0;
};
// Natural logarithm of the softmax, before temperature: of `token`, and of the `top` likeliest in descending
// order.
double logprob_of(std::span<const float> logits, int64_t token);
std::vector<Candidate> top_logprobs(std::span<const float> logits, int64_t top);

}  // namespace tessera::serve
