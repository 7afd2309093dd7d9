// Entropy of tokens drawn one by one with their frequencies: the loss of a model that has learnt the
// frequencies and nothing else. A trained model must lie below it.
#pragma once

#include <cstdint>
#include <span>

namespace tessera::data {

// Nats per token; 0 when there are no tokens. counts: occurrences by id.
double unigram_entropy(std::span<const int64_t> counts);

}  // namespace tessera::data
