// What a search found, for people and for programs.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "plan/search.h"

namespace tessera::plan {

// The best `top` layouts as a table, one line each, with what bounds it and why it loses to the one above it.
std::string table(const Request& request, const SearchResult& result, int64_t top);
// Memory by class and time by cause of one prediction, a few lines.
std::string details(const Request& request, const Prediction& prediction);
// The keys of DESIGN.md part 10; what is not predicted yet is null.
nlohmann::json to_json(const Request& request, const SearchResult& result, int64_t top);
nlohmann::json to_json(const Request& request, const Prediction& prediction);

// 1536 -> "1.50 KiB"
std::string bytes_text(double bytes);
// 0.0123 -> "12.3 ms"
std::string seconds_text(double seconds);

}  // namespace tessera::plan
