// The prefill workers of `tessera serve`: processes with the whole model that compute long prompts for this one
// (serve/prefill_pool.h). Each is watched and replaced for itself, so that the loss of one stops nobody else.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <vector>

#include "cli/torch/rank_team.h"
#include "serve/prefill_pool.h"
#include "serve/setup.h"

namespace tessera::cli {

inline constexpr const char* kPrefillRole = "prefill";

struct PrefillFlags {
  int64_t workers = 0, from_tokens = 64;

  void add_to(CLI::App& command);
  Status check(const Layout& layout) const;
};

class PrefillProcesses {
 public:
  // The workers load from here on.
  static Result<std::unique_ptr<PrefillProcesses>> start(const PrefillFlags& flags,
                                                         const serve::ServeOptions& options, double silence_s);
  // Waits until all have loaded. Null when there are none. Once.
  Result<std::unique_ptr<serve::PrefillPool>> meet();

 private:
  std::vector<std::unique_ptr<serve::Team>> teams_;
  serve::PrefillPool::Options options_;
};

}  // namespace tessera::cli
