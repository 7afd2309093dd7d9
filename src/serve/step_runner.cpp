#include "serve/step_runner.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>

#include "core/log.h"

namespace tessera::serve {

StepRunner::StepRunner(ServedModel& model, KvCache cache, KvTiers tiers)
    : model_(&model), cache_(std::move(cache)), tiers_(std::move(tiers)) {}

Result<StepRunner> StepRunner::make(ServedModel& model, const batching::SchedulerOptions& scheduling,
                                    const std::filesystem::path& folder) {
  TESSERA_ASSIGN_OR_RETURN(KvCache cache, model.make_cache(scheduling.blocks, scheduling.block_tokens));
  TESSERA_ASSIGN_OR_RETURN(KvTiers tiers, KvTiers::make(cache, {.host_blocks = scheduling.host_blocks,
                                                                .disk_blocks = scheduling.disk_blocks,
                                                                .folder = folder}));
  return StepRunner(model, std::move(cache), std::move(tiers));
}

void StepRunner::connect(const RankGroups& groups) {
  groups_ = groups;
  model_->connect(groups);
}

void StepRunner::read_blocks(std::span<const batching::BlockId> blocks, std::span<std::byte> bytes) const {
  const auto each = static_cast<size_t>(block_bytes());
  for (size_t i = 0; i < blocks.size(); ++i) read_block(cache_, blocks[i], bytes.subspan(i * each, each));
}

void StepRunner::write_blocks(std::span<const std::byte> bytes, std::span<const batching::BlockId> blocks) {
  const auto each = static_cast<size_t>(block_bytes());
  for (size_t i = 0; i < blocks.size(); ++i) write_block(bytes.subspan(i * each, each), cache_, blocks[i]);
}

Result<bool> StepRunner::move(Batches batches) {
  Status moved = tiers_.move(own(batches).moves, cache_);
  if (!moved.ok()) log(LogLevel::warn, "{}", moved.error().message);
  std::array<int64_t, 1> failures{moved.ok() ? 0 : 1};
  const bool any_disk = std::any_of(batches.begin(), batches.end(),
                                    [](const StepBatch& batch) { return touches_disk(batch.moves); });
  if (any_disk) TESSERA_RETURN_IF_ERROR(groups_.world->all_reduce_sum(failures));
  return failures[0] == 0;
}

Result<std::vector<at::Tensor>> StepRunner::forward(Batches batches) {
  const ServePlace& place = model_->place();
  TESSERA_ASSIGN_OR_RETURN(PassRows rows, model_->forward_rows(own(batches), cache_));
  const at::Tensor& mine = rows.logits;
  hidden_ = rows.hidden;
  if (place.rank == 0) return collect(batches, mine);
  if (place.gives_logits() && mine.numel() > 0)
    TESSERA_RETURN_IF_ERROR(
        groups_.world->send(0, {static_cast<const std::byte*>(mine.const_data_ptr()), mine.nbytes()}));
  return std::vector<at::Tensor>();
}

Result<std::vector<std::vector<int64_t>>> StepRunner::guess_ahead(std::span<const MtpStart> starts) {
  return serve::guess_ahead(*model_, cache_, starts);
}

Result<std::vector<at::Tensor>> StepRunner::collect(Batches batches, const at::Tensor& mine) const {
  std::vector<at::Tensor> logits;
  for (size_t replica = 0; replica < batches.size(); ++replica) {
    const int64_t from = model_->place().logits_ranks[replica];
    if (from == 0) {
      logits.push_back(mine);
      continue;
    }
    at::Tensor& theirs = logits.emplace_back(at::empty(
        {std::ssize(batches[replica].wanted), model_->spec().vocab}, at::TensorOptions().dtype(at::kFloat)));
    if (theirs.numel() == 0) continue;
    TESSERA_RETURN_IF_ERROR(
        groups_.world->recv(from, {static_cast<std::byte*>(theirs.mutable_data_ptr()), theirs.nbytes()}));
  }
  return logits;
}

}  // namespace tessera::serve
