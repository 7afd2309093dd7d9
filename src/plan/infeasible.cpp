#include "plan/infeasible.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace tessera::plan {

nlohmann::json infeasible_json(std::span<const Infeasible> reasons) {
  nlohmann::json out = nlohmann::json::array();
  for (const Infeasible& reason : reasons)
    out.push_back({{"constraint", reason.constraint},
                   {"needed", reason.needed},
                   {"available", reason.available},
                   {"unit", reason.unit}});
  return out;
}

std::string infeasible_text(std::span<const Infeasible> reasons) {
  std::string text;
  for (const Infeasible& reason : reasons)
    text += fmt::format("  {}: needed {:.4g}, available {:.4g} {}\n", reason.constraint, reason.needed,
                        reason.available, reason.unit);
  return text;
}

}  // namespace tessera::plan
