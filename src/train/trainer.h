// One rank of a training job: its shard of the model, its optimizer states, and one step after another.
//
// The trainer knows neither processes nor files: groups come from a factory (threads or processes), samples
// from a SampleSource, and its state goes in and out as pieces. A failed step (a peer died, a deadline passed,
// abort()) leaves the state undefined: restore() before the next step, or destroy it and build a trainer for
// the new layout.
//
// Threads: step(), state(), restore() from one thread; abort() and current_operation() from any.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/pieces.h"
#include "comm/group.h"
#include "data/sample.h"
#include "layout/layout.h"

namespace tessera::train {

struct OptimizerConfig {
  double learning_rate = 1e-3;
  double min_learning_rate = 1e-4;
  int64_t warmup_steps = 10;
  std::string schedule = "cosine";  // cosine, linear, wsd (warm-up, stable, decay), constant
  int64_t decay_steps =
      0;  // length of the decay after warm-up; 0: to the last step. wsd: length of its last part
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weight_decay = 0.1;
  double clip_norm = 1.0;  // 0: no clipping
};
double learning_rate_at(const OptimizerConfig& config, int64_t step, int64_t total_steps);  // step from 0

struct TrainerOptions {
  ModelSpec model;
  Work work;
  Layout layout;
  OptimizerConfig optimizer;
  int64_t total_steps = 20;
  uint64_t seed = 1;  // of the initial weights: a pure function of (seed, tensor name, element)
  int64_t rank = 0;
  bool keep_fingerprints =
      false;  // see Trainer::fingerprints(); costs a pass over activations and weights a step
  // Makes the group of these ranks (of the job); called on every member with equal arguments, in equal order.
  std::function<Result<std::unique_ptr<Group>>(const std::string& name, const std::vector<int64_t>& members)>
      make_group;
};

// Bytes of tensors of one rank. `peak` counts all that live (0 where the counting allocator is not installed).
struct RankMemory {
  int64_t weights = 0, optimizer = 0;  // kept between steps
  int64_t gradients_peak = 0;
  int64_t peak = 0;       // of all live tensors in a step
  int64_t step_peak = 0;  // the same without copies for snapshots and checkpoints: what a plan predicts
};

struct StepReport {
  int64_t step = 0;
  double loss = 0;  // mean over the global batch's valid tokens; the same on every rank
  double aux_loss = 0;
  double gradient_norm = 0;  // before clipping
  double learning_rate = 0;
  int64_t tokens = 0;  // of the global batch, valid ones
  double seconds = 0;
  double exposed_comm_s = 0, hidden_comm_s = 0;
  uint64_t bytes_sent = 0;             // by this rank, in this step
  std::vector<int64_t> expert_tokens;  // per expert, summed over layers and ranks
  std::vector<RankMemory> memory;      // per rank, so far
};

// One interval on this rank's timeline, for traces and reports.
struct TimelineEvent {
  std::string name;  // "forward", "backward", "optimizer", "reduce"
  int64_t slot = -1;
  double begin_s = 0, end_s = 0;  // on the host's monotonic clock
};

// Hash of one quantity of a step, the same sum over elements as weights_hash(), in the order in which a step
// makes them: "forward" of the embedding and each block, "loss", then "gradient" and "update" of each tensor.
// Two layouts of equal work first differ where the first of these differs.
struct Fingerprint {
  std::string operation, tensor;
  uint64_t hash = 0;
};

class Trainer {
 public:
  static Result<std::unique_ptr<Trainer>> create(TrainerOptions options);
  virtual ~Trainer() = default;

  // Runs step `step` (from 0) on samples [step * global_batch, (step + 1) * global_batch) of the source.
  virtual Result<StepReport> step(int64_t step, const data::SampleSource& source) = 0;
  // Mean loss over samples [first, first + count) without training; count is rounded up to whole micro-batches
  // per replica.
  virtual Result<double> evaluate(const data::SampleSource& source, int64_t first, int64_t count) = 0;

  // This rank's state as views; valid until the next step() or restore().
  virtual std::vector<Piece> state() = 0;
  // Replaces the state by pieces of any layout and rebuilds the working weights. Collective.
  virtual Status restore(PieceReader& reader) = 0;

  // XXH3 over all masters in inventory order, equal on all ranks and for every layout with equal weights.
  // Collective.
  virtual Result<std::string> weights_hash() = 0;

  // Of the last step, equal on all ranks; empty unless TrainerOptions::keep_fingerprints.
  virtual const std::vector<Fingerprint>& fingerprints() const = 0;
  // This rank's slice of the last step's gradient (before clipping), kind master; empty unless
  // keep_fingerprints.
  virtual std::vector<Piece> gradients() = 0;

  virtual void abort(Error error) = 0;
  virtual std::string current_operation() const = 0;  // for a watchdog; "" when idle
  // Of the last step, all ranks; ranks on other hosts have other clocks.
  virtual const std::vector<std::vector<TimelineEvent>>& timelines() const = 0;
  virtual const Layout& layout() const = 0;
  // Peak bytes of gradient buffers (accumulators and leaves in flight) since creation.
  virtual int64_t gradient_bytes_peak() const = 0;
};

}  // namespace tessera::train
