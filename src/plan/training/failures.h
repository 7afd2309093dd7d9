// What interrupts a job, and how a site answers: causes with their shares from a published run, and the policy
// of checkpoints, restarts, spares and checks. Figures come from data/failures.toml, each with its source.
//
// Units: seconds, bytes per second. Errors: an unknown key (the nearest is offered) or a value that is no
// number in range. Threads: values.
#pragma once

#include <string>
#include <vector>

#include "core/result.h"

namespace tessera::plan {

struct FailureCause {
  std::string name;
  double share = 0;       // of all unexpected interruptions
  bool hardware = false;  // a host leaves for repair
  bool silent = false;    // found later than it happened
};

// Most frequent first; shares sum to 1.
const std::vector<FailureCause>& failure_causes();
double planned_per_unexpected();

struct FailurePolicy {
  double restart_s = 0;                       // from the failure to the first new step
  double planned_s = 0;                       // of a planned stop, which loses no steps
  double interval_s = 0;                      // between checkpoints; 0: the best one
  bool to_storage = false;                    // the job waits for the storage, else for a copy in host memory
  double snapshot_s = 0;                      // that every checkpoint costs besides its bytes
  double snapshot_link_share = 0;             // of the link between device and host
  double storage_bytes_per_s_per_device = 0;  // of shared storage, written by all at once
  double repair_s = 0;                        // until a broken host is back
  double spare_hosts = -1;                    // beside the job; -1: as many as `spare_confidence` needs
  double spare_confidence = 0;                // share of time in which a spare is at hand
  double straggler_sigma = 0;                 // of a host's step time, relative; the slowest host sets the pace
  double corruption_detection_s = 0;          // between corruption and its discovery
};

const FailurePolicy& default_policy();
// "restart_s=300,spare_hosts=16,checkpoint=storage" over the defaults.
Result<FailurePolicy> parse_failure_policy(const std::string& text);

}  // namespace tessera::plan
