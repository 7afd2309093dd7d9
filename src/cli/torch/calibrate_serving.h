// `tessera calibrate --serve MODEL`: times steps of this build's engine on the model, in one process, and fits
// the constants with which `tessera plan serve` predicts it on this host.
#pragma once

#include <functional>
#include <string>

#include "plan/serving/host.h"

namespace tessera::cli {

struct CalibrateServing {
  std::string model, dtype = "bf16";
  int64_t threads = 0;  // 0: all cores
  std::function<void(const std::string& what, double done)> progress;
};

struct CalibratedServing {
  plan::serving::HostFit fit;
  std::vector<plan::serving::TimedSteps> timed;  // what fit.predicted_s is of
};
Result<CalibratedServing> calibrate_serving(const CalibrateServing& options);

}  // namespace tessera::cli
