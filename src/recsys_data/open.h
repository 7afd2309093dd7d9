// The data of a run by its kind: where it lies, how it is split, and the three streams.
//
//   adult            path: folder with adult.data and adult.test
//   open_bandit      path: CSV of impressions, its items beside it; split by time
//   criteo_kaggle    path: train.txt, in order of time; the last shares are held out
//   criteo_terabyte  path: folder with day_0 .. day_23 (plain or .gz); the last day is held out
//   csv              path: CSV with the columns named below; split by time where a time column is named, else
//   by
//                    order; or test_path: a file of its own
//   synthetic        a declared stream (synthetic.h)
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "recsys_data/synthetic.h"

namespace tessera::recsys_data {

struct DataOptions {
  std::string kind = "adult";
  std::string path, test_path;
  double valid = 0, test = 0.2;  // shares held out, the last by time
  bool shuffle = true;           // training rows anew in each epoch, where they are held in memory
  uint64_t seed = 1;             // of the shuffle and of synthetic rows

  // csv
  std::string label, positive = "1", negative = "0", time;
  std::vector<std::string> numeric;
  std::vector<std::string> categorical;  // "name" for any text, "name:1000" for whole numbers below 1000
  std::vector<std::string> multi_hot;    // the same, with several values in a field
  std::string separator = ",", inner_separator = "|";
  bool standardise = true;  // numbers, by the training rows

  // synthetic
  std::string slots = "mlperf";  // "mlperf", "mlperf-multi-hot", or sizes as "1000,1000,20"
  double scale = 1;              // factor on the sizes of mlperf slots
  int64_t train_rows = 1000000, test_rows = 100000, numbers = 13;
  double exponent = 1.05, signal = 1.0, number_signal = 0.5, bias = -1.5;
};

struct Splits {
  std::unique_ptr<Source> train, valid, test;  // valid may be null
  double best_auc = 0;                         // of the test rows where the truth is known, else 0
};

// Errors: those of reading; an unknown kind; a path that is not there, with what should be in it.
Result<Splits> open_data(const DataOptions& options);

}  // namespace tessera::recsys_data
