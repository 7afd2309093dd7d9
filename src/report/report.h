// One HTML page of what a training run left in its folder (docs/run_directory.md): loss, timeline, prediction
// beside measurement, memory, balance of the experts, failures, generated text, and the run's card. The page
// opens offline and is readable without JavaScript, which only adds zoom and read-outs to the line charts.
#pragma once

#include <filesystem>
#include <string>

#include "core/result.h"

namespace tessera::report {

// The page of a run. A file that is absent or malformed is named in its section; the page still comes.
// Errors: `run_dir` is no folder, or holds none of the files of a run.
Result<std::string> render_report(const std::filesystem::path& run_dir);

}  // namespace tessera::report
