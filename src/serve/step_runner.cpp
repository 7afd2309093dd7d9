#include "serve/step_runner.h"

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

void StepRunner::connect(Group& group) {
  group_ = &group;
  model_->connect(group);
}

Result<bool> StepRunner::move(const StepBatch& batch) {
  Status moved = tiers_.move(batch.moves, cache_);
  if (!moved.ok()) log(LogLevel::warn, "{}", moved.error().message);
  std::array<int64_t, 1> failures{moved.ok() ? 0 : 1};
  if (touches_disk(batch.moves)) TESSERA_RETURN_IF_ERROR(group_->all_reduce_sum(failures));
  return failures[0] == 0;
}

}  // namespace tessera::serve
