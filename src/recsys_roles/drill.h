// Does training survive its roles? A drill trains once in one process, and then once per fault in roles as
// processes, with real signals, and compares hashes of all dense weights and rows at the end.
//
//   kill_server, kill_worker, kill_loader, kill_trainer, kill_first_trainer   SIGKILL to one of them
//   stop_server        SIGSTOP: the process is there and does nothing
//   kill_servers       SIGKILL to all embedding servers at once
//   kill_all           SIGKILL to every role at once
//   kill_at_random     twelve kills at random steps, of random roles
#pragma once

#include "recsys_roles/supervisor.h"
#include "resilience/drill.h"

namespace tessera::recsys_roles {

struct DrillOptions {
  // The run of the given `key=value` settings: its configuration, and the command of a role that leaves its
  // result, with hashes, in `result`.
  struct Run {
    recsys_train::RunConfig config;
    std::vector<std::string> command;
  };
  std::function<Result<Run>(const std::vector<std::string>& settings, const std::filesystem::path& result)> run;
  std::vector<std::string> settings;
  std::filesystem::path folder;     // for logs; emptied before
  int64_t strike_at = 100;          // step
  int64_t steps = 0;                // of the run
  std::vector<std::string> faults;  // rows to run; empty: all
  std::function<void(const std::string& line)> on_progress;
};

std::vector<std::string> drill_faults();
Result<resilience::DrillReport> run_drill(const DrillOptions& options);

}  // namespace tessera::recsys_roles
