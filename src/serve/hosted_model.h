// One model that answers requests: its engine, and what clients are told about it.
// Threads: what the engine says; the rest does not change.
#pragma once

#include <memory>

#include "serve/engine.h"
#include "serve/openai_request.h"

namespace tessera::serve {

struct HostedModel {
  std::shared_ptr<void> base;  // what the engine stands on: weights, ranks; goes last
  data::TokenizerPtr tokenizer;
  std::unique_ptr<Engine> engine;
  ServedName name;
  int64_t created = 0;      // seconds since 1970
  std::string description;  // a line for the operator

  HostedModel() = default;
};
using HostedModelPtr = std::shared_ptr<HostedModel>;

}  // namespace tessera::serve
