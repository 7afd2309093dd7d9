#include "plan/training/gpu_bounds.h"

#include <algorithm>

#include "core/numbers.h"

namespace tessera::plan {
namespace {

// Sums here and in the step are rounded in different orders.
constexpr double kRounding = 1 - 1e-9;

double floor_s(const LayerTimes& times) {
  return std::max(times.forward.compute(), times.forward.host) +
         std::max(times.backward.compute(), times.backward.host);
}

}  // namespace

double step_floor_s(const TrainingSetup& setup, const ModelTimes& times, const SoftwareGeneration& software,
                    int64_t gpus) {
  double model = floor_s(times.embedding) + floor_s(times.head);
  for (int32_t kind : setup.model.order) model += floor_s(times.kinds[static_cast<size_t>(kind)]);
  const TrainingLayout& l = setup.layout;
  double replicas_by_stages = real(gpus) / real(l.tp * l.cp);
  double per_stage = real(setup.work.global_batch) / real(l.micro_batch) / replicas_by_stages;
  return kRounding * (per_stage * model * std::min(1.0, software.contention) + software.step_s);
}

double memory_floor_bytes(const TrainingSetup& setup, const ModelMemory& model) {
  StageElements mean;
  for (int32_t kind : setup.model.order) mean.add(model.kinds[static_cast<size_t>(kind)].elements, 1);
  // A model that fits one stage has one embedding and one head; more stages never hold less in sum.
  mean.dense += model.ends.of(true, true);
  mean.dense /= real(setup.layout.pp), mean.experts /= real(setup.layout.pp);
  const MemoryConstants& constants = *model.constants;
  double allocated = state_bytes(setup, mean).total() + constants.bucket_bytes;
  return kRounding * (allocated * (1 + constants.fragmentation) + constants.context_bytes);
}

}  // namespace tessera::plan
