// Everything a training job is told: one file, overridden by key=value. The structures belong to their parts;
// this binds their fields to names.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/config.h"
#include "data/sample.h"
#include "train/trainer.h"

namespace tessera::train {

struct DataConfig {
  std::string source = "files";        // files, or synthetic
  std::string train, valid;            // prefixes of .bin and .idx
  std::string tokenizer;               // copied into checkpoints
  int64_t documents_mean_tokens = 40;  // synthetic
};

struct RunConfig {
  nlohmann::json model_json =
      nlohmann::json::object();  // fields of config.json, or {"path": DIR or config.json}
  ModelSpec model;
  Work work;
  Layout layout;
  std::string precision = "float32";  // float32, bf16, auto
  OptimizerConfig optimizer;
  DataConfig data;
  int64_t steps = 20;
  uint64_t seed = 1;
  std::string run_dir;
  int64_t snapshot_every = 5;
  int64_t checkpoint_every = 0;
  int64_t keep = 2;
  bool disk_checkpoints = true;
  bool resume = true;
  int64_t eval_every = 0;
  int64_t eval_samples = 0;
  int64_t threads = 0;  // of each rank's kernels; 0: cores / ranks on this host, at least 1
};

// Binds every field; afterwards load_file() and set() of `config` write into `run`.
void bind(Config& config, RunConfig& run);

// Reads the file (may be empty: defaults) and the overrides, resolves model and precision, checks work and
// layout. Relative paths are relative to the working directory.
Result<RunConfig> load_run_config(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                                  std::string* explained = nullptr);

// "auto" is bf16 where the processor multiplies it fast (AVX512-BF16 or AMX), else float32.
Result<Precision> resolve_precision(std::string_view text);

// Training and held-out samples (the latter may be null).
struct Sources {
  std::shared_ptr<const data::SampleSource> train, valid;
};
Result<Sources> open_sources(const RunConfig& run);

}  // namespace tessera::train
