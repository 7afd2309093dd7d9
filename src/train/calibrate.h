// How fast is this machine at what the trainer does? The planner prices products, attention, one-pass
// operations and messages; here the very kernels and transport of this build are timed, with outputs allocated
// as the trainer allocates them, and written down as a cluster description.
//
// One process stands for many: kernels run on one thread, ranks of a message are threads with a group of
// processes' transport between them, and the speed left to each of several running processes is measured with
// threads that work on data of their own.
//
// Threads: one calibration at a time; sets kernel threads while it runs and puts them back.
#pragma once

#include <functional>
#include <string>

#include "plan/cluster.h"

namespace tessera::train {

struct CalibrationOptions {
  double seconds = 20;  // about how long to measure; less on a fast machine
  double largest_product =
      1e9;  // FLOP; beyond it a product is taken to run at the rate of the next smaller one
  // Called now and then with what is measured and how much is done, 0 to 1.
  std::function<void(const std::string& what, double done)> progress = [](const std::string&, double) {};
};

// Errors: internal when a kernel or the transport fails.
Result<plan::Cluster> calibrate(const CalibrationOptions& options);

}  // namespace tessera::train
