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
  Traffic traffic;                      // of all workers
  std::string weights_hash, rows_hash;  // where asked for

  Quality test() const { return tests.empty() ? Quality{} : tests.back(); }
};

struct RunCallbacks {
  std::function<void(int64_t rows_of_run)> on_start;  // 0: not known beforehand
  std::function<void(const StepReport&)> on_step;
  std::function<void(int64_t epoch, int64_t step, const Quality&)> on_test;
};

// One trainer's place among several.
struct TrainerSeat {
  int64_t rank = 0, trainers = 1;
  GradientExchange exchange;
  std::string memory;  // shared file of its TrainerMemory; empty: none
};

// What a worker sees of its servers: through the wire of this process and through its cache, where the run has
// them.
class WorkerView {
 public:
  enum class Place : uint8_t { same_process, other_processes };
  WorkerView() = default;
  // `servers` must outlive it.
  WorkerView(const RunConfig& run, const EmbeddingPlan& plan, EmbeddingServers& servers, Place place);
  EmbeddingServers& servers() const { return *seen_; }

 private:
  std::vector<std::unique_ptr<EmbeddingServers>> layers_;
  EmbeddingServers* seen_ = nullptr;
};

// What a run is made of. In one process it holds everything; a trainer in its own process has no data and no
// servers, only the worker it asks.
struct Setup {
  std::unique_ptr<recsys_data::Splits> data;
  DataFacts facts;
  int64_t rank = 0;
  EmbeddingPlan embeddings;
  std::unique_ptr<BatchLoader> loader;
  std::unique_ptr<EmbeddingServers> servers;
  WorkerView view;
  std::unique_ptr<EmbeddingWorker> worker;
  std::unique_ptr<DenseModel> model;
  std::unique_ptr<DenseOptimizer> optimizer;
  std::unique_ptr<TrainerMemory> memory;
  std::unique_ptr<Trainer> trainer;
};
// Everything in this process; with several trainers, each has data and servers of its own.
Result<std::unique_ptr<Setup>> set_up(const RunConfig& run, const TrainerSeat& seat = {});
// A trainer that asks `worker`.
Result<std::unique_ptr<Setup>> set_up_trainer(const RunConfig& run, DataFacts facts,
                                              std::unique_ptr<EmbeddingWorker> worker, const TrainerSeat& seat);

// Dimension of each group of the store.
std::vector<int64_t> dims_of(const EmbeddingPlan& plan);
// How the servers of a run number and order what they get.
ServingOptions serving_options(const RunConfig& run);

// From where the trainer stands to the end of the last epoch. Trainers of rank above 0 test nothing.
Result<RunResult> train(const RunConfig& run, Setup& setup, const RunCallbacks& callbacks);
// Fills in the hashes of dense weights with their optimizer's state, and of all rows.
Status add_hashes(Setup& setup, RunResult& result);

}  // namespace tessera::recsys_train
