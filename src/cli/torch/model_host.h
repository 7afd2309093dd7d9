// From the options of `tessera serve` to models that answer: their names and paths, and what loads each of
// them.
#pragma once

#include <string>
#include <vector>

#include "cli/torch/prefill_processes.h"
#include "cli/torch/serve_options.h"
#include "serve/hosted_model.h"

namespace tessera::cli {

struct ModelPath {
  std::string name, path;  // what clients call it; Hugging Face directory
};

// NAME=PATH, or PATH alone, whose name is `name` or else the directory's. Errors: a name twice.
Result<std::vector<ModelPath>> parse_model_paths(const std::vector<std::string>& given,
                                                 const std::string& name);

struct HostOptions {
  ServeFlags serve;  // with the path of this model
  serve::ServeOptions sizes;
  serve::EngineOptions engine;  // what is the user's of it
  std::string name, chat_template;
  PrefillFlags prefill;
  std::vector<std::string> adapters;  // NAME=DIR
  double worker_silence_s = 0.8;
};

// Starts ranks, loads weights and tokenizer, starts the engine. To be called on the thread that will destroy
// it.
Result<std::unique_ptr<serve::HostedModel>> host_model(const HostOptions& options);

}  // namespace tessera::cli
