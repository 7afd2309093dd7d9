// `tessera plan train` on a cluster of GPUs: what the command line says, and the answer.
#pragma once

#include <cstdint>
#include <string>

#include "core/result.h"

namespace tessera::cli {

struct GpuTrainOptions {
  std::string model, cluster, layout, precision = "auto", software, schedules, json, html, emit, failures, site;
  std::string objective = "time", space = "default";
  int64_t gpus = 1, min_gpus = 0, seq = 4096, batch = 0, micro_batch = 0, top = 10;
  double tokens = 0, max_days = 0;
};

// Prints the ranking; exit_status is 1 when nothing fits.
Status plan_gpu_training(const GpuTrainOptions& options);

}  // namespace tessera::cli
