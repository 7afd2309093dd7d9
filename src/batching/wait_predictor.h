// How long a new request would wait for its first token. A server that knows it refuses at once what would come
// too late, instead of letting everyone wait longer, and says when to try again.
//
// Every request claims the tokens that it may grow to. While requests wait, the server ends so many claims a
// second; a new request runs when the claims in front of it, and one like its own, have ended. What it learns
// fades with a time constant of 20 busy seconds. No clock: seconds are passed in. Threads: one at a time.
#pragma once

#include <cstdint>

#include "batching/scheduler.h"

namespace tessera::batching {

class WaitPredictor {
 public:
  // A step took so long and computed so many tokens; `saturated`: requests were waiting meanwhile.
  void step_ended(double seconds, int64_t tokens, bool saturated);
  // A request that had run ended and gave back its claim.
  void claim_ended(int64_t max_length) { ended_ += static_cast<double>(max_length); }

  // Seconds from now to the first token of a new request; zero as long as nothing is known.
  double first_token_s(const Scheduler& scheduler, const Submission& request) const;

 private:
  double claims_per_s() const;

  double ended_ = 0;                            // since the last step
  double claims_ = 0, saturated_s_ = 0;         // of saturated steps
  double tokens_ = 0, steps_ = 0, step_s_ = 0;  // of all steps
};

}  // namespace tessera::batching
