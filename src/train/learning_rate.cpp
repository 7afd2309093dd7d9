#include <algorithm>
#include <cmath>
#include <numbers>

#include "train/trainer.h"

namespace tessera::train {

double learning_rate_at(const OptimizerConfig& config, int64_t step, int64_t total_steps) {
  if (step < config.warmup_steps)
    return config.learning_rate * static_cast<double>(step + 1) / static_cast<double>(config.warmup_steps);
  bool wsd = config.schedule == "wsd";
  int64_t length = config.decay_steps > 0
                       ? config.decay_steps
                       : std::max<int64_t>(1, (total_steps - config.warmup_steps) / (wsd ? 5 : 1));
  int64_t begin = wsd ? total_steps - length : config.warmup_steps;
  double progress = std::clamp(static_cast<double>(step - begin) / static_cast<double>(length), 0.0, 1.0);
  double span = config.learning_rate - config.min_learning_rate;
  if (config.schedule == "constant") return config.learning_rate;
  if (config.schedule == "cosine")
    return config.min_learning_rate + span * 0.5 * (1 + std::cos(std::numbers::pi * progress));
  return config.learning_rate - span * progress;  // linear, and the last part of wsd
}

}  // namespace tessera::train
