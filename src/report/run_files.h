// The files of a run directory as they are found: parsed where possible, and a word on each that is missing or
// malformed.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/result.h"

namespace tessera::report {

using Json = nlohmann::json;

struct RunFiles {
  Json run, plan, memory, timeline, samples, calibration, data;  // null when absent
  Json recommender;                                              // of `tessera recsys train`
  std::vector<Json> metrics, events;            // one object per line; time_s counts from the start
  std::map<std::string, std::string> problems;  // file name -> why it cannot be shown

  bool is_recommender() const;
  // "" when the file could be read.
  std::string problem(const std::string& file) const;
};

// Errors: no such folder; a folder without any of the files.
Result<RunFiles> read_run_files(const std::filesystem::path& run_dir);

// The value at a path such as "memory_gib.by_stage"; null when it is absent. Members of what is no object are
// absent, so any shape of file can be asked.
const Json& json_at(const Json& object, std::string_view path);
// The same when it is a list, else an empty one.
const Json& list_at(const Json& object, std::string_view path);
// The number at a path such as "memory_gib.peak"; absent when it is missing or not a finite number.
std::optional<double> number_at(const Json& object, std::string_view path);
// The text at a path; numbers and lists are printed, "" when absent.
std::string text_at(const Json& object, std::string_view path);

}  // namespace tessera::report
