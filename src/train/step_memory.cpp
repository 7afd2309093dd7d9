#include "train/step_memory.h"

#include <algorithm>

#include "model/live_bytes.h"

namespace tessera::train {
namespace {

RankMemory kept_between_steps(const model::Units& units) {
  RankMemory memory;
  for (const auto& unit : units.all) {
    memory.weights += unit->weight_bytes();
    memory.optimizer += unit->optimizer_bytes();
  }
  return memory;
}

}  // namespace

void StepMemory::begin(const model::Units& units) {
  RankMemory kept = kept_between_steps(units);
  peak_ = std::max(peak_, model::peak_live_bytes());
  copies_ = std::max<int64_t>(0, model::live_bytes() - kept.weights - kept.optimizer);
  model::reset_peak_live_bytes();
}

void StepMemory::note() {
  int64_t peak = model::peak_live_bytes();
  peak_ = std::max(peak_, peak);
  step_peak_ = std::max(step_peak_, peak - copies_);
}

RankMemory StepMemory::so_far(const model::Units& units) const {
  RankMemory memory = kept_between_steps(units);
  memory.peak = peak_;
  memory.step_peak = step_peak_;
  return memory;
}

}  // namespace tessera::train
