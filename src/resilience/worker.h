// A training job inside one worker: steps, evaluation, snapshots in a neighbour's memory, checkpoints on disk,
// and what happens when a peer dies.
//
// run_job() is the whole life of a worker. Alone it is a plain loop. Under `tessera launch` a worker belongs to
// a generation: a list of workers with a rank each, and a layout. When the launcher calls a new generation
// because a worker was lost, run_job() aborts the step, keeps the process and its snapshots, reports what it
// holds, and goes on with the rank, layout and state it is given; so callbacks may see a step twice, and the
// layout may change. Order of samples and global batch stay.
//
// Errors: those of the user's input end the job at once on all workers; a lost peer does not surface here
// unless nothing is left to recover with. Threads: callbacks run on the thread that called run_job().
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "resilience/context.h"
#include "train/trainer.h"

namespace tessera::resilience {

// What a worker is part of, from one loss of a worker to the next.
struct Generation {
  int64_t number = 0;
  int64_t rank = 0;
  Layout layout;
  int64_t first_step = 0;  // the step it goes on with
  std::string source;      // of its state: "fresh", "memory", "disk"
};

using TrainerFactory = std::function<Result<std::unique_ptr<train::Trainer>>(train::TrainerOptions options)>;

struct Job {
  ModelSpec model;
  Work work;
  Layout layout;  // the wanted one; a generation of fewer ranks takes another of equal work
  train::OptimizerConfig optimizer;
  int64_t steps = 20;
  uint64_t seed = 1;
  std::shared_ptr<const data::SampleSource> train;
  std::shared_ptr<const data::SampleSource> valid;  // may be null
  std::filesystem::path run_dir;                    // checkpoints lie in run_dir/checkpoints

  int64_t snapshot_every = 5;    // steps between snapshots in memory; 0: none
  int64_t checkpoint_every = 0;  // steps between checkpoints; 0: only one at the end
  int64_t keep = 2;              // newest checkpoints kept; 0: all
  bool disk_checkpoints = true;  // false: neither written nor read
  bool resume = true;            // start from the newest intact checkpoint of run_dir, if there is one
  int64_t eval_every = 0;        // steps between evaluations; 0: none; the last step is always evaluated then
  int64_t eval_samples = 0;

  std::string config_json;                               // of checkpoints; empty: made from `model`
  std::vector<std::filesystem::path> checkpoint_copies;  // files copied into them, such as tokenizer.json
  std::string optimizer_text;                            // settings kept in them, as text

  TrainerFactory make_trainer;              // train::Trainer::create when empty
  const std::atomic<bool>* stop = nullptr;  // when true, the job ends in order after the present step

  // Called on every rank when a generation is ready to step; on rank 0 after each step and evaluation.
  std::function<void(const Generation&, const train::Trainer&)> on_generation;
  std::function<void(const train::StepReport&, const train::Trainer&)> on_step;
  std::function<void(int64_t step, double loss)> on_evaluation;
};

struct JobResult {
  int64_t rank = 0;  // in the last generation; -1: a spare
  int64_t steps = 0;
  double loss = 0;           // of the last step
  std::string weights_hash;  // the same on all ranks; "" on a spare
  int64_t generations = 1;
  // Cost of resilience on this worker, seconds in which training stood still.
  double snapshot_s = 0, checkpoint_s = 0;
};

Result<JobResult> run_job(const Job& job, const WorkerContext& context);

}  // namespace tessera::resilience
