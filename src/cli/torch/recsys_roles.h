// What `tessera launch` and `tessera recsys train` share: one role of a training run in this process, and all
// of them under a supervisor.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/result.h"
#include "recsys_roles/role.h"

namespace tessera::cli {

// What a dense trainer does when it is set up. `progress` takes the number of steps done.
using TrainerBody =
    std::function<Status(recsys_train::Setup& setup, const std::function<void(int64_t)>& progress)>;

// Takes the role `name` in a job that `tessera launch` started: a trainer returns when all trainers are done,
// the others answer until they are killed. Errors reach the launcher too.
Status run_recsys_role(const recsys_train::RunConfig& run, const std::string& name, const TrainerBody& train);

// The configuration in the words behind `recsys train`.
Result<recsys_train::RunConfig> recsys_run_of(const std::vector<std::string>& words);

}  // namespace tessera::cli
