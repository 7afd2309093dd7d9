// Models and clusters that have a name. They come from data files compiled into the planner: one TOML table per
// model with the fields of its Hugging Face config.json, its source, other names and published parameter
// counts.
#pragma once

#include <string>
#include <vector>

#include "core/result.h"
#include "spec/spec.h"

namespace tessera::plan {

struct ModelEntry {
  std::string name;
  std::vector<std::string> aliases;
  std::string source;              // of the sizes
  std::string parameters, active;  // as published: "671B", "37B"; "" where nothing is
  std::string config_json;         // fields of a config.json
};
const std::vector<ModelEntry>& model_entries();
std::vector<std::string> model_names();

// A name or alias of the catalogue, or the path of a config.json or of a directory that holds one. Errors name
// the nearest known model. find_model: anything that can be planned; load_model: what our trainer and server
// run too.
Result<Blueprint> find_model(const std::string& name_or_path);
Result<ModelSpec> load_model(const std::string& name_or_path);

}  // namespace tessera::plan
