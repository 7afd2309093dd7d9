// Models and clusters that have a name. Both come from data files compiled into the planner.
#pragma once

#include <string>
#include <vector>

#include "core/result.h"
#include "spec/spec.h"

namespace tessera::plan {

std::vector<std::string> model_names();
// A name of the catalogue, or the path of a config.json or of a directory that holds one. Errors name the
// nearest known model.
Result<ModelSpec> load_model(const std::string& name_or_path);

}  // namespace tessera::plan
