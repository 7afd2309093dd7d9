// What serving takes and costs: the power model of training (training/run_cost.h), fed with what a server's
// accelerators do. A device draws its rating while its multipliers work, a share of what lies between idle and
// rating while only its memory works (data/facility.toml), and idles else; host, network and cooling come on
// top. Threads: functions.
#pragma once

#include "plan/serving/accelerator.h"
#include "plan/serving/step_time.h"

namespace tessera::plan::serving {

// Shares of time, over all accelerators of a deployment.
struct Activity {
  double multiplying = 0;                             // the multipliers work
  double streaming = 0;                               // only the memory does
  void add(const StepBreakdown& step, double share);  // `share` of the time goes into such steps
};

struct ServingCost {
  double watts = 0;  // mean of one accelerator at the meter, with host, network and cooling
  double usd = 0, joules = 0, co2_g = 0;  // of one output token; carbon of hardware included
};
ServingCost serving_cost(const Accelerator& device, const Activity& activity, double tokens_per_s_gpu);

}  // namespace tessera::plan::serving
