#include "cli/torch/prefill_processes.h"

#include "cli/number_checks.h"

namespace tessera::cli {

void PrefillFlags::add_to(CLI::App& command) {
  command
      .add_option("--prefill-workers", workers,
                  "Processes that compute long prompts and send keys and values to this one, which decodes")
      ->check(CLI::Range(0, 64))
      ->capture_default_str();
  command
      .add_option("--prefill-from", from_tokens,
                  "Prompt tokens not in the cache from which on a prefill worker computes them")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

Status PrefillFlags::check(const Layout& layout) const {
  if (workers == 0 || layout.processes() == 1) return {};
  return invalid(
      "--prefill-workers bring keys and values to one process, but layout '{}' has {}; use one of the two",
      to_string(layout), layout.processes());
}

Result<std::unique_ptr<PrefillProcesses>> PrefillProcesses::start(const PrefillFlags& flags,
                                                                  const serve::ServeOptions& options,
                                                                  double silence_s) {
  auto processes = std::make_unique<PrefillProcesses>();
  processes->options_ = {.least_tokens = flags.from_tokens,
                         .most_tokens = serve::scheduling_of(options).capacity_tokens()};
  for (int64_t i = 0; i < flags.workers; ++i) {
    // This process and one worker.
    TESSERA_ASSIGN_OR_RETURN(auto team, RankTeam::start({.layout = {.dp = 2},
                                                         .kv_tokens = options.kv_tokens,
                                                         .role = kPrefillRole,
                                                         .silence_s = silence_s}));
    processes->teams_.push_back(std::move(team));
  }
  return processes;
}

Result<std::unique_ptr<serve::PrefillPool>> PrefillProcesses::meet() {
  if (teams_.empty()) return std::unique_ptr<serve::PrefillPool>();
  for (auto& team : teams_) TESSERA_RETURN_IF_ERROR(team->meet());
  return std::make_unique<serve::PrefillPool>(std::move(teams_), options_);
}

}  // namespace tessera::cli
