// training.json: what a run must know besides its tensors to go on: the next step, the seed, the work, the
// layout that saved (any other may load), the optimizer's settings, and whatever the trainer adds.
#pragma once

#include <string>
#include <string_view>

#include "layout/layout.h"

namespace tessera::checkpoint {

inline constexpr const char* kTrainingFile = "training.json";

struct TrainingRecord {
  int64_t step = 0;  // steps done: the next step to run
  uint64_t seed = 0;
  Work work;
  Layout layout;
  std::string optimizer;  // its settings as text (TOML or JSON), kept as it is
  std::string extra;      // a JSON value of the trainer's own; "" is none
};

// Errors: `extra` is not JSON.
Result<std::string> to_text(const TrainingRecord& record);
Result<TrainingRecord> parse_training_record(std::string_view text);

}  // namespace tessera::checkpoint
