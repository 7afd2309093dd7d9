#include "cli/torch/recsys_launch.h"

#include <algorithm>
#include <cstdlib>

#include "cli/torch/recsys_roles.h"

namespace tessera::cli {
namespace {

using recsys_roles::RoleName;
using recsys_roles::SupervisorOptions;

Result<std::vector<RoleName>> roles_to_start(const std::string& text, const recsys_train::RunConfig& run) {
  const std::vector<RoleName> all = recsys_roles::all_roles(run);
  if (text.empty()) return all;
  std::vector<RoleName> roles;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    TESSERA_ASSIGN_OR_RETURN(RoleName role, recsys_roles::parse_role(text.substr(begin, end - begin)));
    const bool spare = role.kind == RoleName::server && run.replicas == 0;  // for `recsys reshard`
    if (!spare && std::find(all.begin(), all.end(), role) == all.end())
      return invalid(
          "--roles {}: the job has {} servers with {} replicas each, {} workers and {} trainers, counted from "
          "0",
          role.text(), run.servers, run.replicas, run.workers, run.trainers);
    roles.push_back(role);
    begin = end + 1;
  }
  return roles;
}

}  // namespace

bool starts_in_roles(const std::vector<std::string>& command) {
  return command.size() >= 2 && command[0] == "recsys" && command[1] == "train";
}

Result<SupervisorOptions> recsys_launch_options(const RecsysLaunch& launch) {
  SupervisorOptions options;
  std::vector<std::string> words(launch.command.begin() + 2, launch.command.end());
  if (launch.trainers > 0) words.push_back(fmt::format("train.trainers={}", launch.trainers));
  if (launch.replicas > 0) words.push_back(fmt::format("train.replicas={}", launch.replicas));
  TESSERA_ASSIGN_OR_RETURN(options.run, recsys_run_of(words));
  TESSERA_RETURN_IF_ERROR(check_run_dir(options.run));
  // A role that is replaced must not look for the newest one again.
  if (!options.run.resume.empty()) words.push_back("train.resume=" + options.run.resume);
  TESSERA_ASSIGN_OR_RETURN(options.roles, roles_to_start(launch.roles, options.run));
  for (const std::string& fault : launch.faults) {
    TESSERA_ASSIGN_OR_RETURN(auto strike, recsys_roles::parse_strike(fault));
    options.strikes.push_back(strike);
  }
  std::error_code failure;
  options.command = {std::filesystem::read_symlink("/proc/self/exe", failure).string(), "recsys", "train"};
  options.command.insert(options.command.end(), words.begin(), words.end());
  if (!launch.address.empty()) options.address = launch.address;
  options.port = launch.port;
  options.join = launch.join;
  if (const char* token = std::getenv("TESSERA_TOKEN")) options.token = token;
  if (!launch.join.empty() && options.token.empty())
    return invalid("--join needs the job's token in the environment variable TESSERA_TOKEN");
  options.keep_memory = launch.keep_memory;
  options.max_restarts = launch.max_restarts;
  options.run_dir = launch.run_dir.empty() && launch.join.empty() ? options.run.run_dir : launch.run_dir;
  return options;
}

}  // namespace tessera::cli
