// What rank 0 leaves in the run directory while a job runs: see docs/run_directory.md.
#pragma once

#include <memory>

#include "core/clock.h"
#include "core/tensorboard.h"
#include "core/trace.h"
#include "train/run_config.h"

namespace tessera::train {

class RunRecord {
 public:
  // Makes the directory and writes run.json with status "running". `command` is shown in the card.
  static Result<std::unique_ptr<RunRecord>> open(const RunConfig& run, std::string command);
  ~RunRecord();

  void set_generation(int64_t number) { generation_ = number; }
  // The line of a step waits for its evaluation, which may follow.
  Status step(const StepReport& report, const std::vector<std::vector<TimelineEvent>>& timelines);
  Status evaluation(int64_t step, double loss);
  // Final card, memory and timeline. `error` empty: finished.
  Status finish(const std::string& error);

  // Predicted seconds of a step from plan.json of the run directory, for this layout; 0 when there is none.
  double predicted_step_s() const { return predicted_step_s_; }

 private:
  RunRecord(const RunConfig& run, std::string command);
  Status flush_line();
  Status write_card(const std::string& status, const std::string& error);
  Status write_memory() const;
  Status write_timeline() const;
  void keep_timeline(int64_t step, const std::vector<std::vector<TimelineEvent>>& timelines);
  void read_prediction();

  const RunConfig& run_;
  std::string command_, started_;
  Clock::time_point start_ = Clock::now();
  int64_t generation_ = 0;
  std::unique_ptr<TensorBoardWriter> board_;
  nlohmann::json line_;  // of the last step, not yet written
  std::vector<RankMemory> memory_;
  std::vector<TraceEvent> trace_;
  nlohmann::json evaluation_ = nullptr;
  double predicted_step_s_ = 0;
};

}  // namespace tessera::train
