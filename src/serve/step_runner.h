// One rank's part of a step: blocks of keys and values change places, then the tokens run. Every rank of a
// group does the same, so that the caches of all stay alike. Threads: one at a time.
#pragma once

#include "batching/scheduler.h"
#include "serve/kv_tiers.h"
#include "serve/model.h"
#include "serve/mtp_draft.h"

namespace tessera::serve {

class StepRunner {
 public:
  // Allocates the cache and its tiers. `model` must outlive the runner. `folder`: of the disk tier.
  static Result<StepRunner> make(ServedModel& model, const batching::SchedulerOptions& scheduling,
                                 const std::filesystem::path& folder);

  // The ranks to run with; again after they have met anew. The cache's content means nothing from then on.
  void connect(const RankGroups& groups);
  int64_t block_tokens() const { return cache_.block_tokens; }
  int64_t block_bytes() const { return serve::block_bytes(cache_); }

  // Keys and values of this rank as bytes, block_bytes() for each block in turn.
  void read_blocks(std::span<const batching::BlockId> blocks, std::span<std::byte> bytes) const;
  void write_blocks(std::span<const std::byte> bytes, std::span<const batching::BlockId> blocks);

  // Whether this rank has its disk tier. An error is logged by move(), too.
  const Status& disk() const { return tiers_.disk(); }

  // Batches of a step: one for each replica, of which this rank runs its own.
  using Batches = std::span<const StepBatch>;
  // Carries out its moves. False when the disk of some rank has failed: then no rank may run this batch
  // or use what is in the cache, but the group is well. Errors: the group's.
  Result<bool> move(Batches batches);
  // On rank 0 the logits of every replica, as ServedModel::forward gives them; elsewhere nothing.
  Result<std::vector<at::Tensor>> forward(Batches batches);
  // Hidden states [tokens, hidden] of the pass before; undefined without a multi-token-prediction layer.
  const at::Tensor& hidden() const { return hidden_; }
  // guess_ahead() into this rank's cache.
  Result<std::vector<std::vector<int64_t>>> guess_ahead(std::span<const MtpStart> starts);

 private:
  StepRunner(ServedModel& model, KvCache cache, KvTiers tiers);
  Result<std::vector<at::Tensor>> collect(Batches batches, const at::Tensor& mine) const;
  const StepBatch& own(Batches batches) const { return batches[static_cast<size_t>(model_->place().replica)]; }

  ServedModel* model_;
  RankGroups groups_;
  KvCache cache_;
  KvTiers tiers_;
  at::Tensor hidden_;
};

}  // namespace tessera::serve
