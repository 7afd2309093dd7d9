// The steps of parse_blueprint: each reads one aspect of a config.json for all layers.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "spec/blueprint.h"
#include "spec/config_fields.h"
#include "spec/families.h"

namespace tessera {

struct ConfigReader {
  ConfigFields& fields;
  const Family& family;
  std::string type;  // model_type
  int64_t layers = 0, hidden = 0;

  bool is(std::initializer_list<const char*> types) const;
  // A list that has an entry for each layer; a shorter one is an error, a longer one (MTP layers) is cut.
  std::vector<int64_t> integers_per_layer(const char* name);
  std::vector<std::string> texts_per_layer(const char* name);
};

// One for each layer. What is wrong lands in reader.fields.
std::vector<Mixer> read_mixers(ConfigReader& reader);
std::vector<Ffn> read_ffns(ConfigReader& reader);
// Models whose blocks hold either a mixer or an FFN (Nemotron-H), and those that list every block
// (nemotron-nas). Empty: the model is of neither kind.
std::vector<Layer> read_block_list(ConfigReader& reader);
Mixer read_attention(ConfigReader& reader);
bool is_gated(ConfigReader& reader);

// Fills the formats of weights and cache. `config`: the object that holds quantization_config, if any.
void read_formats(ConfigFields& fields, Blueprint& model);

}  // namespace tessera
