// An engine in virtual time: the scheduler that the server runs, in counts (lane.h), under arrivals that are
// drawn or come from a trace. Runs of equal steps are one event, so a simulated second costs by the requests
// that come and go in it, not by their tokens.
//
// Workers that do both phases: one attention rank is simulated; with dp ranks and pp stages its share of the
// requests is every (dp * pp)-th. Workers of one phase: all their ranks, each request to the one with the least
// to do; the first token counts when the cache has come to the decode worker. Units: seconds, tokens. Threads:
// one simulation each.
#pragma once

#include <vector>

#include "plan/serving/arrivals.h"
#include "plan/serving/closed_form.h"

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
  double mean_running = 0;      // requests of one attention rank (that decodes), over time
  double within_deadlines = 0;  // share of requests
  int64_t requests = 0, steps = 0, preemptions = 0;
};

// Errors: those of check(); invalid_argument when a request can never fit the cache.
Result<Simulation> simulate(const Deployment& deployment, const std::vector<Request>& requests,
                            const SimulationOptions& options = {});
Result<Simulation> simulate(const Disaggregated& pair, const std::vector<Request>& requests,
                            const SimulationOptions& options = {});

}  // namespace tessera::plan::serving
