// Saves checkpoints while training goes on: the dense thread waits for the cut only; rows are written by their
// servers, and what belongs together is made known when all have finished. A checkpoint that fails is said in a
// warning, and training goes on; the one before it stays.
//
// Threads: one.
#pragma once

#include <thread>

#include "recsys_train/run.h"

namespace tessera::recsys_train {

class Checkpointer {
 public:
  // Both must outlive it.
  Checkpointer(const RunConfig& run, Setup& setup)
      : run_(run), setup_(setup), first_step_(setup.trainer->standing().step) {}
  ~Checkpointer() { wait(); }

  // REQUIRES: no gradient of step at.step exists, and those before it are on their way to the servers.
  void save(const Standing& at);

 private:
  Status begin(const Standing& at);
  Status finish(const Standing& at, const std::vector<float>& dense);
  void wait();

  const RunConfig& run_;
  Setup& setup_;
  int64_t first_step_;  // where the run resumed: that checkpoint is there
  int64_t saved_ = 0;   // since the last full one
  std::thread writer_;
};

}  // namespace tessera::recsys_train
