// `tessera launch -- recsys train ...`: the roles of a recommender's training as processes.
#pragma once

#include <string>
#include <vector>

#include "recsys_roles/supervisor.h"

namespace tessera::cli {

struct RecsysLaunch {
  int64_t trainers = 0;       // 0: as the configuration says
  int64_t replicas = 0;       // of each server; 0: as the configuration says
  std::string roles;          // "server:0,trainer:0"; empty: all
  std::string address, join;  // where to listen; the job to join
  int port = 0;               // of the store
  int64_t max_restarts = 3;
  bool keep_memory = true;
  std::string run_dir;
  std::vector<std::string> faults, command;  // command: recsys train ...
};

// Whether a command is one that is started in roles.
bool starts_in_roles(const std::vector<std::string>& command);
// Callbacks and `stop` are the caller's to fill in.
Result<recsys_roles::SupervisorOptions> recsys_launch_options(const RecsysLaunch& launch);

}  // namespace tessera::cli
