// Everything a recommender training run is told: one TOML file, overridden by key=value.
//
// Groups: all slots are in the group "default" unless a table names some of them:
//   [groups.hot]
//   slots = ["C9", "C20"]
//   staleness = 2
//   learning_rate = 0.005
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/config.h"
#include "recsys/wire_end.h"
#include "recsys_data/open.h"
#include "recsys_train/dense_optimizer.h"
#include "recsys_train/model.h"
#include "recsys_train/trainer.h"

namespace tessera::recsys_train {

using recsys::WireConfig;

struct RunConfig {
  recsys_data::DataOptions data;
  ModelOptions model;
  recsys::GroupOptions embedding;                                    // of every group, before its own table
  double init_low = -0.01, init_high = 0.01, init_deviation = 0.01;  // of its initial values
  recsys::OptimizerOptions wide_optimizer;  // of the one-dimensional rows of a linear part
  Pooling pooling = Pooling::sum;
  std::vector<std::string> sequences;  // "SLOT:TARGET": behaviours, and the slot of what they are weighed for
  int64_t sequence_length = 50;        // behaviours kept of a row, the last
  nlohmann::json groups = nlohmann::json::object();
  int64_t admission_threshold = 2;  // of embedding.admission
  // Bytes of memory for all rows, shared over groups by the size of a row and over servers evenly; 0: no bound.
  // Rows beyond it go away, or to `disk`.
  int64_t memory_bytes = 0;
  recsys::DiskOptions disk;
  WireConfig wire;
  int64_t cache_rows = 0;  // of each group, kept by the worker inside the bound of staleness; 0: none
  DenseOptimizerOptions dense;
  TrainerOptions trainer;
  int64_t epochs = 1;
  int64_t servers = 1;                // embedding stores
  int64_t replicas = 0;               // of each, in processes on other hosts: 0 or 1
  int64_t trainers = 1, workers = 1;  // processes by `tessera launch`
  uint64_t seed = 1;                  // of weights and rows; data.seed is that of the order of the data
  int64_t threads = 0;                // of the dense network; 0: what libtorch takes
  std::string run_dir;
  int64_t full_every = 10, keep = 2;  // checkpoints
  std::string resume;                 // folder of the checkpoint to go on from; empty: none
};

void bind(Config& config, RunConfig& run);

// `explained`: every value and where it came from. Errors: of files and values, in a readable line.
Result<RunConfig> load_run_config(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                                  std::string* explained = nullptr);

// Whether a run may begin: its folder holds no checkpoint that would be taken for a later one of this run.
Status check_run_dir(const RunConfig& run);

// What slots belong to, and the groups of the store in its order, for data with these features.
struct EmbeddingPlan {
  LookupPlan lookup;
  std::vector<recsys::GroupOptions> store_groups;
  std::vector<std::string> group_names;  // of the groups of `lookup`
  std::vector<int64_t> staleness;        // of each of them; -1: the run's
};
Result<EmbeddingPlan> plan_embeddings(const RunConfig& run, const recsys_data::Features& features);

}  // namespace tessera::recsys_train
