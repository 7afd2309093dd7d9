// Training with the hybrid algorithm: rows are looked up ahead of the dense step and their gradients come back
// when they are ready, under a bound of staleness (staleness.h); the dense weights are synchronous.
//
//   sync     every look-up waits for all earlier gradients: staleness 0
//   hybrid   at most `staleness` batches outstanding in each group
//   async    hybrid, and the gradient of the dense weights is applied `dense_staleness` steps late, as on a
//   parameter
//            server that so many other trainers write to
//
// Two ways to run the same algorithm:
//   deterministic  one thread; gradients are applied as late as the bound allows, so a run is a function of its
//                  options and its data, and its staleness is the bound itself. This is how the bound is
//                  judged.
//   pipelined      loading, look-up, dense step and update overlap, each on its own thread; staleness is what
//   comes of
//                  it, within the bound. With staleness 0 both give the same bits.
//
// With several trainers (a Group of more than one rank) each takes every size()-th batch of the source and
// dense gradients are averaged over them; a last round with fewer batches than trainers is left out. Threads:
// one. Errors: of the data, of the servers, of a lost peer.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/group.h"
#include "recsys_train/dense_optimizer.h"
#include "recsys_train/lookup.h"
#include "recsys_train/metrics.h"
#include "recsys_train/model.h"
#include "recsys_train/staleness.h"

namespace tessera::recsys_train {

enum class Mode : uint8_t { sync, hybrid, async };
Result<Mode> parse_mode(std::string_view text);
const char* to_string(Mode mode);

struct TrainerOptions {
  int64_t batch = 128;  // rows of a step of one trainer
  Mode mode = Mode::hybrid;
  int64_t staleness = 10;                // bound, in batches of this trainer, of every group
  std::vector<int64_t> group_staleness;  // of each group; -1: as above
  int64_t dense_staleness = 4;           // async only
  bool deterministic = false;
  int64_t prefetch = 4;  // batches loaded ahead of the look-up
};

struct StepReport {
  int64_t step = 0;  // from 0, over all epochs
  int64_t rows = 0;
  double loss = 0;
  // Seconds that the dense thread waited for the batch, computed, and averaged gradients over trainers.
  double wait_s = 0, dense_s = 0, reduce_s = 0;
};

struct TrainerParts {
  EmbeddingServers* servers = nullptr;
  DenseModel* model = nullptr;
  DenseOptimizer* optimizer = nullptr;
  Group* trainers = nullptr;  // null: one
  LookupPlan plan;
};

class Trainer {
 public:
  // The parts must outlive the trainer.
  Trainer(TrainerParts parts, TrainerOptions options);

  // One pass over the source; all gradients are applied when it returns. Returns the rows that were trained on.
  Result<int64_t> epoch(recsys_data::Source& source, int64_t number,
                        const std::function<void(const StepReport&)>& on_step = {});
  // Logits of a whole source against its labels; changes nothing.
  Result<Quality> evaluate(recsys_data::Source& source);
  // Logits [B] of one batch; changes nothing.
  Result<std::vector<float>> score(const recsys_data::Batch& batch);

  const StalenessGate& staleness() const { return gate_; }
  int64_t steps() const { return step_; }

 private:
  struct Work;
  Result<bool> load(recsys_data::Source& source, Work& work);
  Status look_up(Work& work, Deduplicator& deduplicator, recsys::Access access);
  void prepare(Work& work) const;
  Result<StepReport> dense_step(Work& work);
  Status apply(int64_t group, GroupRows& rows, int64_t step);
  void update_dense();
  Result<int64_t> run_in_order(recsys_data::Source& source,
                               const std::function<void(const StepReport&)>& on_step);
  Result<int64_t> run_pipelined(recsys_data::Source& source,
                                const std::function<void(const StepReport&)>& on_step);

  TrainerParts parts_;
  TrainerOptions options_;
  StalenessGate gate_;
  int64_t step_ = 0;
  std::vector<at::Tensor> late_gradients_;  // async: oldest first
};

// Averages `values` over the ranks of a group; every rank gets the same bits.
Status all_reduce_mean(Group& group, std::span<float> values);

}  // namespace tessera::recsys_train
