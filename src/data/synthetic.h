// Tokens without a file: documents of a random grammar, a pure function of (seed, index). Each token is
// followed by one of a few successors, so a model has something to learn; used by verify, drill and tests.
#pragma once

#include "data/sample.h"

namespace tessera::data {

class SyntheticSource : public SampleSource {
 public:
  struct Options {
    int64_t vocab = 256;
    int64_t seq = 64;
    uint64_t seed = 1;
    int64_t documents_mean_tokens = 40;  // lengths are uniform from 1 to twice the mean
    int64_t successors = 4;              // of each token: log(successors) nats is the best loss
  };
  explicit SyntheticSource(Options options) : options_(options) {}
  int64_t seq() const override { return options_.seq; }
  Sample sample(int64_t global_index) const override;

 private:
  Options options_;
};

}  // namespace tessera::data
