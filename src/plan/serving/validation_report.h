// A comparison with published serving figures as text for people and as JSON for machines
// (docs/planning.md).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "plan/serving/predict.h"

namespace tessera::plan::serving {

// One line per row: predicted, published and error, or the reason of refusing.
std::string validation_rows(const ValidationReport& report);
std::string validation_summary(const ValidationReport& report);
nlohmann::json validation_json(const ValidationReport& report);

}  // namespace tessera::plan::serving
