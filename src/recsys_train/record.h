// What a run leaves in its folder (docs/run_directory.md): run.json, the card; metrics.jsonl, one line for
// every `record_every` steps; tensorboard/, the same figures as scalars; recsys.json, the result. Threads: one.
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
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

  // `traffic`, where given: of the workers so far; asked for with every line.
  Status step(const StepReport& step);
  std::function<Result<Traffic>()> traffic;
  Status test(int64_t step, const Quality& quality);
  // Writes the last lines and the final card; and the result, where there is one, with the tests of the run.
  // `error` empty: finished.
  Status finish(const std::string& error, nlohmann::json result = nullptr);

 private:
  RunRecord(std::filesystem::path folder, std::string command, std::string settings, int64_t record_every);
  Status write_line(int64_t step);
  Status add_traffic(int64_t step, nlohmann::json& line);
  Status write_card(const std::string& status, const std::string& error) const;

  std::filesystem::path folder_;
  std::string command_, settings_;
  int64_t record_every_;
  Clock::time_point start_ = Clock::now(), line_start_ = start_;
  std::unique_ptr<TensorBoardWriter> board_;
  // Sums since the last line.
  int64_t steps_ = 0, rows_ = 0, last_step_ = 0;
  double loss_ = 0;
  StepReport sums_;   // of its seconds
  CacheCount cache_;  // at the last line
  Quality quality_;
  nlohmann::json tests_ = nlohmann::json::array();
};

}  // namespace tessera::recsys_train
