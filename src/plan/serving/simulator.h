// An engine in virtual time: the scheduler that the server runs (batching/scheduler.h) chooses each step, the
// step model says how long it takes. Where steps look alike (everything decodes, nothing arrives or ends) they
// are taken at once, with the mean of the first and the last step's time; the step time is close to linear in
// the length of the contexts.
//
// One attention rank is simulated; with dp ranks and pp stages its share of the requests is every (dp * pp)-th.
// Units: seconds, tokens. Threads: one simulation each.
#pragma once

#include <vector>

#include "plan/serving/arrivals.h"
#include "plan/serving/deployment.h"

namespace tessera::plan::serving {

struct Percentiles {
  double mean = 0, p50 = 0, p90 = 0, p95 = 0, p99 = 0;
};
Percentiles percentiles(std::vector<double> values);

struct SimulationOptions {
  // Closed loop: so many users take the requests in order, each the next one when its last was answered;
  // arrival times are ignored. 0: requests arrive at their times.
  int64_t users = 0;
  int64_t block_tokens = 16;
  double prefill_deadline_s = 0;  // 0: none; else goodput counts requests with a TTFT below
  double token_deadline_s = 0;    // and a TPOT below
};

struct Simulation {
  Percentiles ttft_s, tpot_s, request_s;
  double seconds = 0;       // of virtual time, from the first arrival to the last answer
  double tokens_per_s = 0;  // output tokens of the whole deployment
  double tokens_per_s_gpu = 0;
  double mean_running = 0;      // requests of one attention rank, over time
  double within_deadlines = 0;  // share of requests
  int64_t requests = 0, steps = 0, preemptions = 0;
};

// Errors: those of check(); invalid_argument when a request can never fit the cache.
Result<Simulation> simulate(const Deployment& deployment, const std::vector<Request>& requests,
                            const SimulationOptions& options = {});

}  // namespace tessera::plan::serving
