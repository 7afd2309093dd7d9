// A declared stream of impressions: ids by Zipf's law over slots of given sizes, labels from a planted logistic
// truth, so that the best AUC any model can reach is known. Row i is a function of (options, i) alone.
//
// Truth: logit = bias + signal * (sum over ids of a normal weight of (slot, id)) + (sum of numbers times a
// normal weight), both sums scaled to variance signal^2 and number_signal^2; label = 1 with probability
// sigmoid(logit).
#pragma once

#include "recsys_data/batch.h"

namespace tessera::recsys_data {

struct SyntheticOptions {
  std::vector<int64_t> cardinalities;  // ids of each slot; mlperf_cardinalities() for Criteo's
  std::vector<int64_t> ids_per_row;    // of each slot; empty: one
  int64_t numbers = 13;
  double exponent = 1.05;
  double signal = 1.0, number_signal = 0.5, bias = -1.5;
  uint64_t seed = 1;
};

// Sizes of the 26 slots of Criteo 1 TB, capped at 40 million, and its ids in a row with several ids
// (multi-hot), as in MLPerf Training's DLRM-DCNv2.
std::vector<int64_t> mlperf_cardinalities();
std::vector<int64_t> mlperf_ids_per_row();

Status validate(const SyntheticOptions& options);

// Rows [first, first + rows).
std::unique_ptr<Source> make_synthetic_source(SyntheticOptions options, int64_t first, int64_t rows);

// Expected AUC over these rows of a model that knows the truth: the best there is.
double best_auc(const SyntheticOptions& options, int64_t first, int64_t rows);

}  // namespace tessera::recsys_data
