// One attention rank of one pipeline group in virtual time: the scheduler chooses each step (in counts,
// batching/counted_scheduler.h), the step model says how long it takes. Runs of steps that only decode are one
// event, cut short when a request arrives that may change the next step.
//
// With drafts a step gives `tokens_per_step` tokens of a sequence: the lane then counts in units of so many
// tokens, so lengths are right to within one unit. Units: seconds, tokens. Threads: one at a time.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "batching/counted_scheduler.h"
#include "plan/serving/decode_times.h"
#include "plan/serving/deployment.h"

namespace tessera::plan::serving {

class Lane {
 public:
  // `block_tokens`: of a page of the cache.
  Lane(const Deployment& deployment, int64_t block_tokens);
  Lane(const Lane&) = delete;  // decode_ looks at model_
  Lane& operator=(const Lane&) = delete;

  // The request becomes known at `now`, before end_s(). Requests are numbered from 0 in order of submission.
  // `cached` of its prompt tokens are not computed. Errors: invalid_argument when it can never fit the cache.
  Status submit(int64_t prompt, int64_t answer, int64_t cached, double now);

  // When the event under way is over; infinity when there is none.
  double end_s() const { return end_s_; }
  bool is_idle() const { return end_s_ == kNever; }
  // Ends it. What was submitted at its end must be known before the next one is planned.
  void end();
  // Chooses the next event, from `now` on.
  void plan(double now);

  // Of the last event: requests that got their first token, and whose answers are complete.
  std::span<const size_t> first_tokens() const { return first_tokens_; }
  std::span<const size_t> ended() const { return ended_; }

  int64_t outstanding() const { return scheduler_.num_running() + scheduler_.num_waiting(); }
  int64_t steps = 0, preemptions = 0;
  double running_time = 0;  // running requests, over time

 private:
  static constexpr double kNever = std::numeric_limits<double>::infinity();
  batching::CountedOptions scheduling(const Deployment& deployment, int64_t block_tokens) const;
  double mean_context() const;
  double step_seconds(const batching::CountedStep& step) const;

  StepModel model_;
  double unit_;  // tokens that a sequence gains in a step
  DecodeTimes decode_;
  batching::CountedScheduler scheduler_;
  double start_s_ = 0, end_s_ = kNever;
  double running_ = 0;    // requests during the event under way
  bool decodes_ = false;  // it is `run_` steps that only decode; else a step of another kind, which is chosen
  int64_t run_ = 0;
  std::vector<size_t> first_tokens_, ended_, coming_firsts_;
};

}  // namespace tessera::plan::serving
