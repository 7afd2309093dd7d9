// What failures leave of a training run: the share of wall time that ends up in finished steps.
//
// Failures are exponential with mean time M between interruptions of the job. Work between checkpoints of cost
// C is lost with a failure and a restart costs R: goodput = tau / (M e^(R/M) (e^((tau + C)/M) - 1)) at interval
// tau (Daly 2006); the best tau is found numerically. Threads: reentrant.
#pragma once

#include "plan/hardware/gpu_cluster.h"

namespace tessera::plan {

struct FailureModel {
  double mean_time_between_s = 0;  // interruptions of the whole job, 0: never
  double checkpoint_s = 0;         // that the job waits for one checkpoint
  double restart_s = 900;          // detection, restart and warm-up: MegaScale catches up within 15 minutes
};

struct Goodput {
  double share = 1;       // of wall time
  double interval_s = 0;  // between checkpoints, the best one; 0: none needed
  double interruptions_per_day = 0;
};

// At a given interval.
double goodput_at(const FailureModel& model, double interval_s);
Goodput best_goodput(const FailureModel& model);

// Of a job on `devices` of a cluster; each device holds `state_bytes` to save, which leave it at the rate of
// its host's memory while the job waits, and reach storage in the background.
FailureModel failure_model(const GpuCluster& cluster, double devices, double state_bytes);

}  // namespace tessera::plan
