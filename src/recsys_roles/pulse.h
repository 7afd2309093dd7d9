// Signs of life of a role, for its supervisor, whatever its other threads do (resilience/protocol.h: beat/N).
#pragma once

#include <atomic>
#include <thread>

#include "comm/group.h"

namespace tessera::recsys_roles {

class Pulse {
 public:
  // `leads`: the number of its steps is that of the job.
  Pulse(std::shared_ptr<Store> store, int64_t process, bool leads = false);
  ~Pulse();
  void progress(int64_t steps_done) { steps_done_ = steps_done; }

 private:
  void beat();

  std::shared_ptr<Store> store_;
  int64_t process_;
  bool leads_;
  std::atomic<int64_t> steps_done_ = 0;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

}  // namespace tessera::recsys_roles
