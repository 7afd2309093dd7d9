// Who sends the requests of a simulation, when, and what became of each. Threads: one at a time.
#pragma once

#include <limits>
#include <vector>

#include "plan/serving/simulator.h"

namespace tessera::plan::serving {

class Clients {
 public:
  static constexpr double kNever = std::numeric_limits<double>::infinity();

  // `users`: of a closed loop; 0: requests are sent at their times. The engine gets each `on_the_way_s` later.
  Clients(std::vector<Request> requests, int64_t users, double on_the_way_s);

  // When the engine gets the next one.
  double next_s() const { return sent_ < requests_.size() ? send_s_[sent_] + on_the_way_s_ : kNever; }
  size_t send();
  void first_token(size_t request, double now) { progress_[request].first_s = now; }
  void answered(size_t request, double now);

  bool all_answered() const { return done_ == requests_.size(); }
  const Request& operator[](size_t request) const { return requests_[request]; }
  // After `seconds`; without what only the engine knows.
  Simulation report(const SimulationOptions& options, double seconds) const;

 private:
  struct Progress {
    double sent_s = 0, first_s = 0, done_s = 0;
  };
  std::vector<Request> requests_;
  std::vector<Progress> progress_;
  std::vector<double> send_s_;
  size_t sent_ = 0, done_ = 0, released_ = 0;
  bool closed_;
  double on_the_way_s_;
};

}  // namespace tessera::plan::serving
