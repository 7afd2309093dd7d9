// Readers of the config.json of models that are served and not trained here, one file for each family.
#pragma once

#include "serve/served_spec.h"
#include "spec/model_dimensions.h"

namespace tessera::serve {

using ConfigParser = Result<ServedSpec> (*)(const nlohmann::json& config);
// Of the config's model_type; null when it is another.
ConfigParser served_only_parser(const nlohmann::json& config);

// theta, and YaRN's scaling; other scalings are errors.
void read_rope(const nlohmann::json& config, ConfigFields& fields, ServedSpec& spec);

Result<ServedSpec> parse_gpt_oss(const nlohmann::json& config);
Result<ServedSpec> parse_deepseek(const nlohmann::json& config);
Result<ServedSpec> parse_gpt2(const nlohmann::json& config);
Result<ServedSpec> parse_esm(const nlohmann::json& config);

}  // namespace tessera::serve
