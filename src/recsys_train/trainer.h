// Training with the hybrid algorithm: rows are looked up ahead of the dense step and their gradients come back
// when they are ready, under a bound of staleness (staleness.h); the dense weights are synchronous.
//
//   sync     every look-up waits for all earlier gradients: staleness 0
//   hybrid   at most `staleness` steps outstanding in each group
//   async    hybrid, and the gradient of the dense weights is applied `dense_staleness` steps late, as on a
//            parameter server that so many other trainers write to
//
// Two ways to run the same algorithm:
//   deterministic  one thread; gradients are applied as late as the bound allows, so a run is a function of its
//                  options and its data, and its staleness is the bound itself. This is how the bound is
//                  judged.
//   pipelined      loading, look-up, dense step and update overlap, each on its own thread; staleness is what
//   comes of
//                  it, within the bound. With staleness 0 both give the same bits.
//
// A step has `parts` batches. Their dense gradients are averaged and their rows updated in the order of the
// parts, whoever computes them: bits depend on the parts, not on the number of trainers that share them. A last
// round with fewer batches than parts is left out.
//
// With a TrainerMemory a trainer that is killed goes on at its last step. Threads: one. Errors: of the data, of
// the worker and its servers, of the peers.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/group.h"
#include "recsys_train/dense_optimizer.h"
#include "recsys_train/metrics.h"
#include "recsys_train/model.h"
#include "recsys_train/staleness.h"
#include "recsys_train/trainer_memory.h"
#include "recsys_train/worker.h"

namespace tessera::recsys_train {

enum class Mode : uint8_t { sync, hybrid, async };
Result<Mode> parse_mode(std::string_view text);
const char* to_string(Mode mode);

struct TrainerOptions {
  int64_t batch = 128;  // rows of one part of a step
  int64_t parts = 0;    // of a step; 0: as many as trainers
  Mode mode = Mode::hybrid;
  int64_t staleness = 10;                // bound, in steps, of every group
  int64_t staleness_warmup = 200;        // steps over which bounds grow from 0
  std::vector<int64_t> group_staleness;  // of each group; -1: as above
  int64_t dense_staleness = 4;           // async only
  bool deterministic = false;
  int64_t prefetch = 4;  // batches loaded ahead of the look-up
  // Steps between two checkpoints; 0: none. In a deterministic run no gradient is late across one, so that a
  // run that resumes from it has the bits of one that went on.
  int64_t checkpoint_every = 0;
};

// Bounds that hold for each of `groups`.
StalenessBounds staleness_bounds(const TrainerOptions& options, int64_t groups);

struct StepReport {
  int64_t step = 0;  // from 0, over all epochs
  int64_t rows = 0;  // of all parts
  double loss = 0;   // mean over them
  // Seconds that the dense thread waited for the batch, computed, and averaged gradients over trainers.
  double wait_s = 0, dense_s = 0, reduce_s = 0;
  // Seconds that the other stages worked since the last report: loading, look-up (and its wait at the bound of
  // staleness), update. They overlap.
  double load_s = 0, look_up_s = 0, gate_s = 0, update_s = 0;
};

// Brings together what each trainer computed for a step: `all` holds one stretch of equal length for each part,
// own parts are filled in, and the others are when it returns.
using GradientExchange = std::function<Status(int64_t step, std::span<float> all)>;
// Over a Group, whose ranks share the parts evenly. The group must outlive the exchange.
GradientExchange exchange_over(Group& group);

struct TrainerParts {
  EmbeddingWorker* worker = nullptr;
  DenseModel* model = nullptr;
  DenseOptimizer* optimizer = nullptr;
  LookupPlan plan;
  int64_t rank = 0, trainers = 1;
  GradientExchange exchange;        // with more than one trainer
  TrainerMemory* memory = nullptr;  // null: nothing outlives the process
};

// Floats of a trainer's state and gradients, for its memory.
TrainerMemory::Shape memory_shape(const TrainerParts& parts, const TrainerOptions& options);

class Trainer {
 public:
  // The parts must outlive the trainer. Takes up what the memory holds. REQUIRES: parts of a step divisible by
  // trainers.
  Trainer(TrainerParts parts, TrainerOptions options);

  // The pass that standing() stands in, to its end; all gradients of this trainer are applied when it returns.
  // Returns the rows that all trainers trained on, without those before standing().
  Result<int64_t> epoch(const std::function<void(const StepReport&)>& on_step = {});
  // Goes on to the next pass.
  void finish_epoch();
  // Logits of the test rows against their labels, on the rows after the last step of all trainers; changes
  // nothing.
  Result<Quality> evaluate();

  const StalenessGate& staleness() const { return gate_; }
  const Standing& standing() const { return standing_; }
  // Weights and optimizer state in one order: what a checkpoint keeps. set_state() takes them and goes on from
  // there.
  std::vector<float> state();
  void set_state(std::span<const float> state, const Standing& progress);
  // Gradients of the own parts of an earlier step, as the exchange was given them; empty when the memory has
  // lost them. REQUIRES: no epoch is under way.
  std::vector<float> kept_dense(int64_t step);
  // Called before the steps whose number is a multiple of checkpoint_every: no gradient of this step or a later
  // one exists anywhere, and those of earlier ones are on their way to the servers.
  std::function<Status(const Standing&)> on_checkpoint;
  // Called after each dense step, before its rows are updated.
  std::function<Status(const Standing&)> on_dense_step;

 private:
  struct Part;
  struct Work;
  using OnStep = std::function<void(const StepReport&)>;
  int64_t own_parts() const { return options_.parts / parts_.trainers; }
  int64_t dense_floats() const;
  BatchKey key_of(int64_t part, int64_t round, int64_t step) const;
  bool is_checkpoint(int64_t step) const {
    return options_.checkpoint_every > 0 && step > 0 && step % options_.checkpoint_every == 0;
  }
  Status checkpoint(int64_t step);
  Result<bool> load(Work& work);
  Status look_up(Work& work);
  void prepare(Part& part) const;
  Result<StepReport> dense_step(Work& work);
  void compute(Work& work);
  void keep(Work& work);
  void take_kept(const TrainerMemory::Kept& kept, Work& work);
  std::span<float> dense_of(int64_t part);
  Status average();
  void update_dense();
  Status apply(Work& work, int64_t group);
  std::vector<std::shared_ptr<Work>> pending();
  void commit();
  void for_state(const std::function<void(std::span<float>)>& visit);
  Result<int64_t> run_in_order(const OnStep& on_step);
  Result<int64_t> run_pipelined(const OnStep& on_step);

  TrainerParts parts_;
  TrainerOptions options_;
  StalenessGate gate_;
  Standing standing_;
  bool took_over_ = false;  // from an earlier process, whose last gradients may not have reached the servers
  // Of the stages, since the last report.
  std::atomic<double> load_s_ = 0, look_up_s_ = 0, gate_s_ = 0, update_s_ = 0;
  int64_t loading_round_ = 0, loading_step_ = 0;
  std::vector<float> dense_;                // of each part of a step: gradients, loss, rows
  std::vector<at::Tensor> late_gradients_;  // async: oldest first
};

}  // namespace tessera::recsys_train
