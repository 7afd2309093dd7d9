// Mean-field estimates of a deployment under traffic: what a user waits for the first token (TTFT), what every
// later token takes (TPOT), and what the accelerators give.
//
// Aggregated serving: prompts and answers share an engine. While a request decodes, prompts of others take time
// from it: with r requests running, each cycle of duration T = S + D (prompt service, decoding) holds one
// prompt of each, so   D = (output - 1) * t_decode + (r - 1) * D / T * delta,   where delta is what a prompt
// adds to decode steps. r = min(users, what the KV cache holds); by Little's law the others wait T * (users / r
// - 1). At the start all users send at once: the first of a user's `requests_per_user` requests waits behind
// half of the others.
//
// Disaggregated serving is a closed queueing network: a station of prefill workers (one prompt per attention
// rank at a time), a transfer of the cache over the network, and decoding without prompts as a delay.
//
// A load near full gives `saturated`: TTFT is then a queue's length, decided by how long the load lasts.
// Units: seconds, tokens. Threads: functions.
#pragma once

#include "plan/serving/energy.h"
#include "plan/serving/memory.h"
#include "plan/serving/step_time.h"

namespace tessera::plan::serving {

enum class Arrival {
  closed,  // `concurrency` users, each sends its next request when the last one is answered
  open,    // `rate` requests per second at random
  flood,   // more requests than the engine takes, from the start
  batch,   // `concurrency` prompts start together and nothing follows
};

struct Traffic {
  Arrival arrival = Arrival::closed;
  double input_tokens = 1024, output_tokens = 1024;  // means
  double cached_prefix = 0;                          // leading prompt tokens found in the cache
  double concurrency = 1;
  double rate = 0;
  double requests_per_user = 10;
  bool equal_lengths = false;  // requests that start together also end together
};

struct Estimate {
  double ttft_s = 0, tpot_s = 0;
  double tokens_per_s = 0;       // output tokens of the whole deployment
  double tokens_per_s_gpu = 0;   // output tokens per accelerator
  double tokens_per_s_user = 0;  // 1 / tpot
  double running = 0;            // requests decoding or prefilling at once, all ranks
  double load = 0;               // of the scarcest of KV cache and prefill: 1 is full
  bool saturated = false;        // load above 0.9
  double gpus = 0;
  double transfer_s = 0;      // of the cache of a prompt, disaggregated
  StepBreakdown decode_step;  // of a decode step in this state
  Activity activity;          // of the accelerators
};

// Errors: invalid_argument for a layout that cannot be; resource_exhausted when weights or one request do not
// fit, with what is missing.
Result<Estimate> aggregated(const Deployment& deployment, const Traffic& traffic, double workers = 1);

struct Disaggregated {
  Deployment prefill, decode;
  double prefill_workers = 1, decode_workers = 1;
  double gpus() const;
};
Result<Estimate> disaggregated(const Disaggregated& deployment, const Traffic& traffic);

// Of the cache of a prompt to a decode worker, each rank over its own network card.
double transfer_seconds(const Deployment& prefill, double prompt_tokens);

}  // namespace tessera::plan::serving
