// The subcommands of `tessera plan`, each in a file of its own.
#pragma once

#include <string>

#include "core/result.h"

namespace CLI {
class App;
}

namespace tessera::cli {

void add_plan_serve(CLI::App& plan_command);
void add_plan_validate(CLI::App& plan_command);
void add_plan_facility(CLI::App& plan_command);
void add_plan_recsys(CLI::App& plan_command);

// Prints what the tool of --emit reads. Then all else goes to standard error, as with --json -.
void print_emitted(const std::string& text);
// An error when both --emit and --json want standard output.
Status check_emit(const std::string& emit, const std::string& json);

// Compares predictions with published serving results, row by row unless `summary_only`; `json`: where the
// machine-readable form goes, "" nowhere.
Status validate_serving(const std::string& path, const std::string& json, bool summary_only);

}  // namespace tessera::cli
