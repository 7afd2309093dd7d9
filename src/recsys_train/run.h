// A whole training run in this process: data, embedding servers, dense network, epochs, and the test at the end
// of each.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "recsys_train/run_config.h"

namespace tessera::recsys_train {

struct GroupResult {
  std::string name;
  int64_t staleness_bound = 0;
  std::vector<int64_t> staleness;  // histogram: look-ups by batches outstanding
  recsys::GroupStats rows;
};

struct RunResult {
  int64_t steps = 0, rows = 0;
  double train_s = 0;                            // without evaluation
  double mean_loss = 0;                          // of the last epoch
  double wait_s = 0, dense_s = 0, reduce_s = 0;  // of the dense thread
  std::vector<Quality> tests;                    // after each epoch
  double best_auc = 0;                           // of the test rows where the truth is known
  std::vector<GroupResult> groups;

  Quality test() const { return tests.empty() ? Quality{} : tests.back(); }
};

struct RunCallbacks {
  std::function<void(int64_t rows_of_run)> on_start;  // 0: not known beforehand
  std::function<void(const StepReport&)> on_step;
  std::function<void(int64_t epoch, int64_t step, const Quality&)> on_test;
};

// What a run is made of; the parts of one process.
struct Setup {
  recsys_data::Splits data;
  EmbeddingPlan embeddings;
  std::unique_ptr<EmbeddingServers> servers;
  std::unique_ptr<DenseModel> model;
  std::unique_ptr<DenseOptimizer> optimizer;
  std::unique_ptr<Trainer> trainer;
};
// Makes the servers for these store groups; empty: stores in this process.
using ServersFactory =
    std::function<Result<std::unique_ptr<EmbeddingServers>>(const std::vector<recsys::GroupOptions>&)>;
// `trainers`: the group of the dense trainers, null for one; must outlive the set-up.
Result<std::unique_ptr<Setup>> set_up(const RunConfig& run, Group* trainers = nullptr,
                                      const ServersFactory& make_servers = {});

Result<RunResult> train(const RunConfig& run, Setup& setup, const RunCallbacks& callbacks);

}  // namespace tessera::recsys_train
