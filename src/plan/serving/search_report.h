// The outcome of a search as a table for people and as JSON for machines (docs/planning.md).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>

#include "plan/serving/search.h"

namespace tessera::plan::serving {

std::string search_table(const SearchRequest& request, const SearchOutcome& outcome, int64_t top);
nlohmann::json search_json(const SearchRequest& request, const SearchOutcome& outcome, int64_t top);

// What takes the most time of a decode step: "reading weights of experts", "fixed costs of the engine", ...
std::string bound_of(const StepBreakdown& step);
struct StepPart {
  const char *key, *words;
  double StepBreakdown::*seconds;
};
std::span<const StepPart> step_parts();
nlohmann::json breakdown_ms(const StepBreakdown& step);
std::string describe(const Candidate& candidate);  // "4 x tp=8" or "2 x tp=4 -> 1 x tp=8,dp=..."

}  // namespace tessera::plan::serving
