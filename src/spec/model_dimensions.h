// What every config.json of a transformer says in the same fields: sizes, heads, vocabulary, norm, end tokens.
// Threads: any, on its own arguments.
#pragma once

#include "spec/config_fields.h"
#include "spec/model_spec.h"

namespace tessera {

// Faults are kept by `fields`.
void read_dimensions(ConfigFields& fields, ModelSpec& spec);

}  // namespace tessera
