// What failures leave of a training run: the share of wall time that ends up in finished steps, and where the
// rest goes.
//
// Failures are exponential with mean time M between interruptions of the job. Work between checkpoints of cost
// C is lost with a failure and a restart costs R: goodput = tau / (M e^(R/M) (e^((tau + C)/M) - 1)) at interval
// tau (Daly 2006); the best tau is found numerically. Around that process lie planned stops, waits for a spare
// host (broken hosts under repair are a Poisson variable), steps thrown away because corruption was found late,
// and the pace of the slowest host. Threads: reentrant.
#pragma once

#include "plan/hardware/gpu_cluster.h"
#include "plan/training/failures.h"

namespace tessera::plan {

struct FailureModel {
  double mean_time_between_s = 0;  // interruptions of the whole job, 0: never
  double checkpoint_s = 0;         // that the job waits for one checkpoint
  double restart_s = 900;          // detection, restart and warm-up
  double interval_s = 0;           // between checkpoints, 0: the best one
  double planned = 0;              // share of wall time in planned stops, but for waits
  double waiting = 0;              // for a host, all spares being in repair
  double corruption = 0;           // in steps that are thrown away after late discovery
  double slowdown = 1;             // of a step by its slowest host
  double spare_hosts = 0;          // that stand beside the job
};

// Shares of wall time; with `share` they sum to 1.
struct LostTime {
  double checkpoint = 0, rework = 0, restart = 0, planned = 0, waiting = 0, corruption = 0, stragglers = 0;
  double total() const { return checkpoint + rework + restart + planned + waiting + corruption + stragglers; }
};

struct Goodput {
  double share = 1;       // of wall time
  double interval_s = 0;  // between checkpoints; 0: none needed
  double interruptions_per_day = 0;
  double spare_hosts = 0;
  LostTime lost;
};

// Of the interruptions alone, at a given interval.
double goodput_at(const FailureModel& model, double interval_s);
// At the model's interval, or at the best one.
Goodput best_goodput(const FailureModel& model);

// Of a job on `devices` of a cluster; each device holds `state_bytes` to save.
FailureModel failure_model(const GpuCluster& cluster, double devices, double state_bytes,
                           const FailurePolicy& policy = default_policy());

// Fewest spares with which at least `confidence` of the time no more hosts than that are in repair, when `mean`
// are on average; and the share of time in which more than `spares` are.
double spares_needed(double mean, double confidence);
double share_without_spare(double mean, double spares);

// Mean of the largest of `count` normal variables, in standard deviations (Blom's approximation).
double expected_maximum(double count);

}  // namespace tessera::plan
