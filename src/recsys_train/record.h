// What a run leaves in its folder (docs/run_directory.md): run.json, the card; metrics.jsonl, one line for
// every `record_every` steps; tensorboard/, the same figures as scalars. Threads: one.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "core/clock.h"
#include "core/tensorboard.h"
#include "recsys_train/run.h"

namespace tessera::recsys_train {

class RunRecord {
 public:
  // Makes the folder and writes the card with status "running". `settings`: the configuration as text.
  static Result<std::unique_ptr<RunRecord>> open(const std::filesystem::path& folder, std::string command,
                                                 std::string settings, int64_t record_every = 20);
  ~RunRecord();

  Status step(const StepReport& step);
  Status test(int64_t step, const Quality& quality);
  // Writes the last lines and the final card. `error` empty: finished.
  Status finish(const std::string& error);

 private:
  RunRecord(std::filesystem::path folder, std::string command, std::string settings, int64_t record_every);
  Status write_line(int64_t step);
  Status write_card(const std::string& status, const std::string& error) const;

  std::filesystem::path folder_;
  std::string command_, settings_;
  int64_t record_every_;
  Clock::time_point start_ = Clock::now(), line_start_ = start_;
  std::unique_ptr<TensorBoardWriter> board_;
  // Sums since the last line.
  int64_t steps_ = 0, rows_ = 0, last_step_ = 0;
  double loss_ = 0, wait_s_ = 0, dense_s_ = 0, reduce_s_ = 0;
  Quality quality_;
};

}  // namespace tessera::recsys_train
