// Recovery is a promise that only faults can keep honest: a drill runs a small job once undisturbed and then
// once per fault, with real signals to real processes, and compares the weights at the end bit for bit.
//
//   kill_worker       SIGKILL in the middle of a step; checkpoints on disk are switched off
//   kill_all          SIGKILL to every worker at once; the state comes from disk
//   stop_worker       SIGSTOP: the process is there and does nothing
//   no_spare          SIGKILL, and no process replaces the lost one: fewer ranks, another layout, equal work
//   kill_during_save  SIGKILL while a checkpoint is being written, nothing in memory: the one before it serves
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "core/result.h"

namespace tessera::resilience {

struct DrillOptions {
  // The command of a worker with these further `key=value` settings of the training configuration.
  std::function<std::vector<std::string>(const std::vector<std::string>& settings)> command;
  std::string layout = "fsdp=2,ep=2,pp=2";  // of four ranks
  std::filesystem::path folder;             // for checkpoints and logs; emptied before
  int64_t steps = 20, every = 5;            // steps between snapshots or checkpoints
  std::vector<std::string> faults;          // rows to run; empty: all
  std::function<void(const std::string& line)> on_progress;
};

struct DrillRow {
  std::string fault;
  double detect_s = 0;  // from the fault to its notice by the launcher
  double resume_s = 0;  // from the fault to the end of the first step after it
  int64_t steps_redone = 0;
  std::string source;          // of the state: "memory", "disk"
  bool recovered = false;      // finished, from the right source, within the limits
  bool weights_equal = false;  // to the undisturbed run of one process
  std::string detail;          // what was lost, or why it was not recovered
};

struct DrillReport {
  std::string hash;  // of the undisturbed run
  std::vector<DrillRow> rows;
  bool passed() const;
};

Result<DrillReport> run_drill(const DrillOptions& options);
std::string to_json(const DrillReport& report);
std::string to_table(const DrillReport& report);

}  // namespace tessera::resilience
