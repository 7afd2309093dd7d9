// Why a search of the planner found nothing: the constraint that the nearest candidate misses, and by how much.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>

namespace tessera::plan {

struct Infeasible {
  std::string constraint;
  double needed = 0, available = 0;
  std::string unit;  // of both
};

nlohmann::json infeasible_json(std::span<const Infeasible> reasons);  // an array
std::string infeasible_text(std::span<const Infeasible> reasons);     // a line each, indented

}  // namespace tessera::plan
