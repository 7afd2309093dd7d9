// How long a new request would wait for its first token. A server that knows it refuses at once what would come
// too late, instead of letting everyone wait longer, and says when to try again.
//
// Every request claims the tokens that it may grow to. While requests wait, the server ends so many claims a
// second; a new request runs when the claims in front of it, and one like its own, have ended. A tenant gets
// what the others leave, and its fair share at least: those in front of it are its own, ended at that rate, and
// whoever sends less than a fair share overtakes them. What it learns of the server fades with a time constant
// of 20 busy seconds, what it learns of tenants with 5: who begins to send is counted at once.
//
// The prediction is a mean. How far above it 49 of 50 requests stay is learned, too: likely_s() is for
// promises, of which 19 of 20 are to hold also while the load changes. No clock: seconds are passed in.
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "batching/scheduler.h"

namespace tessera::batching {

class WaitPredictor {
 public:
  // A step took so long and computed so many tokens; `saturated`: requests were waiting meanwhile.
  void step_ended(double seconds, int64_t tokens, bool saturated);
  // A request that had run ended and gave back its claim.
  void claim_ended(int64_t max_length) { ended_ += static_cast<double>(max_length); }

  // A request was queued.
  void claimed(const Submission& request);
  // The first token of a request came after so many seconds, when first_token_s() had said another number.
  void first_token_came(double predicted_s, double took_s);

  // Seconds from now to the first token of a new request; zero as long as nothing is known.
  double first_token_s(const Scheduler& scheduler, const Submission& request) const;
  // 49 of 50 first tokens predicted so come sooner than this.
  double likely_s(double predicted_s) const { return predicted_s * margin_; }

 private:
  double claims_per_s() const;
  double share_of(const std::string& tenant) const;

  struct Demand {  // of a tenant, since it was seen first; both fade
    double claims = 0, seconds = 0;
  };

  double ended_ = 0;                            // since the last step
  double claims_ = 0, saturated_s_ = 0;         // of saturated steps
  double tokens_ = 0, steps_ = 0, step_s_ = 0;  // of all steps
  std::map<std::string, Demand> demand_;
  double margin_ = 1.5;
};

}  // namespace tessera::batching
