// An exported model (recsys_train/export.h) that answers with scores while it follows the folder: a thread
// looks for new versions, applies the rows that changed and then takes the new dense weights. It begins anew
// when the trainer did. While a version is being applied, a request may see rows of before and after it.
//
// A score is a function of the request and the version: it does not depend on other requests. Rows that are
// asked for together are computed together; the same rows in other company may differ in the last bits, as sums
// of matrix products do.
//
// Threads: any. A version that cannot be read is left out and named in standing().
#pragma once

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "recsys/replica.h"
#include "recsys_train/export.h"

namespace tessera::recsys_serve {

struct Scores {
  std::vector<float> logits;  // one for each row
  int64_t version = 0, step = 0;
  double time = 0;  // of the cut of the version, seconds since 1970
};

// The probability of a click.
double probability_of(float logit);

// Where a server stands.
struct Standing {
  bool ready = false;
  int64_t version = 0, step = 0;
  double time = 0;
  double applied_at = 0;                      // when the version was taken up, seconds since 1970
  int64_t versions = 0, rows = 0, bytes = 0;  // applied since the start; resident
  std::string problem;                        // why the newest version is not served; empty: none
};

class ServedModel {
 public:
  struct Options {
    std::filesystem::path folder;
    double poll_s = 0.05;  // between two looks at the folder
  };
  // Errors: no such folder. A folder without a version makes a model that is not ready.
  static Result<std::unique_ptr<ServedModel>> open(Options options);
  ~ServedModel();

  // The model at this moment; null before the first version.
  std::shared_ptr<const recsys_train::ExportedModel> model() const;
  Standing standing() const;

  // REQUIRES: a batch with the features of model(). Errors: unavailable before the first version.
  Result<Scores> score(const recsys_data::Batch& batch) const;

 private:
  struct State;
  explicit ServedModel(Options options) : options_(std::move(options)) {}
  void follow();
  Status look();
  Result<std::shared_ptr<const State>> start_over(const recsys_train::ExportedVersion& newest) const;
  Status catch_up(const State& state, int64_t from, const recsys_train::ExportedVersion& newest) const;
  std::shared_ptr<const State> state() const;

  Options options_;
  bool starts_over_ = false;  // of the thread that follows
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool ends_ = false;
  std::shared_ptr<const State> state_;
  Standing standing_;
  std::thread thread_;
};

}  // namespace tessera::recsys_serve
