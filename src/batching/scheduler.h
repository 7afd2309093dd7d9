// Which tokens of which requests run in the next step of a server. The same policy is run by the server and by
// the planner's simulation: it knows counts of tokens, never their values, and no clock.
//
// A request owns `length` known tokens (prompt and generated so far), of which the first `computed` have their
// keys and values in the cache. A step computes a run of the others; when it reaches the last known token, that
// row gives the next one (`samples`), which the caller reports by append_token() or finish().
//
// Policy, first come first served:
//   1. one token of every decoding request, oldest first; when blocks run out, the youngest running request
//      loses its blocks and waits again at the front (it is recomputed later);
//   2. then prefill chunks of running requests up to the token budget;
//   3. then waiting requests are admitted in order, each when the pool holds all blocks of its known tokens and
//      one spare block for every running request. The head of the queue is never overtaken.
// No request starves: only younger requests yield to older ones, and a request that could never fit the pool is
// refused at submit().
//
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <unordered_map>
#include <vector>

#include "batching/kv_blocks.h"
#include "core/result.h"

namespace tessera::batching {

using RequestId = int64_t;

struct SchedulerOptions {
  int64_t blocks = 1024;           // of the KV cache
  int64_t block_tokens = 16;       // tokens of one block
  int64_t max_batch_tokens = 512;  // tokens of one step
  int64_t max_running = 64;        // requests that hold blocks; at most max_batch_tokens
  int64_t max_waiting = 256;       // submit() refuses beyond

  int64_t capacity_tokens() const { return blocks * block_tokens; }
};

// Tokens [first, first + count) of one request, at absolute positions.
struct StepEntry {
  RequestId id = 0;
  int64_t first = 0, count = 0;
  bool samples = false;  // the last row gives the next token
};

struct Step {
  std::vector<StepEntry> entries;
  std::vector<RequestId> admitted;   // hold blocks from this step on
  std::vector<RequestId> preempted;  // lost their blocks; they run again by themselves
  int64_t tokens() const;
};

class Scheduler {
 public:
  explicit Scheduler(SchedulerOptions options);

  // Queues a request that will own at most `max_length` tokens (prompt and answer). Errors: invalid_argument
  // when max_length can never fit the cache; resource_exhausted when the queue is full.
  Status submit(RequestId id, int64_t prompt_tokens, int64_t max_length);

  // Chooses and accounts the next step: its tokens count as computed. Empty when there is nothing to do.
  Step next_step();

  // A simulator need not walk through steps that all look alike. Steps from now, at most `most`, that will each
  // compute one token of every running request and nothing else, as long as nothing is submitted or finished
  // and every sampled row goes on; 0 when the next step is another one.
  int64_t uniform_steps(int64_t most) const;
  // The same state as after `steps` times next_step() and append_token() of every running request.
  // REQUIRES: steps <= uniform_steps(steps), and no request grows beyond its max_length.
  void run_uniform(int64_t steps);

  // The sampled row of `id` gave a token and the request goes on.
  void append_token(RequestId id);
  // append_token() of every running request that has no token to compute: what a simulator says after it has
  // finished those that end. Returns their number.
  int64_t append_to_all();
  // Forgets a request, waiting or running, and frees its blocks at once. False when it is not known.
  bool finish(RequestId id);

  // Blocks of a running request: its token at position p lies in blocks[p / block_tokens].
  std::span<const BlockId> blocks_of(RequestId id) const;

  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }
  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size()); }
  bool idle() const { return running_.empty() && waiting_.empty(); }
  const BlockPool& pool() const { return pool_; }
  const SchedulerOptions& options() const { return options_; }

 private:
  struct Request {
    RequestId id = 0;
    int64_t arrival = 0;  // order of submit()
    int64_t length = 0, computed = 0, max_length = 0;
    std::vector<BlockId> blocks;
    int64_t missing() const { return length - computed; }
  };

  void schedule_decodes(Step& step);
  void schedule_prefills(Step& step);
  void admit(Step& step);
  void schedule(Request& request, int64_t count, Step& step);
  bool own_blocks(Request& request, Step& step);
  void preempt_youngest(Step& step);
  void grow(Request& request);
  void release_blocks(Request& request);
  bool admits_next() const;
  int64_t blocks_missing(const Request& request, int64_t length) const;

  SchedulerOptions options_;
  BlockPool pool_;
  int64_t next_arrival_ = 0;
  int64_t step_tokens_ = 0;  // of the step that is being chosen
  std::unordered_map<RequestId, Request> requests_;
  // They point into requests_, whose elements do not move.
  std::vector<Request*> running_;  // oldest first
  std::deque<Request*> waiting_;   // oldest first, all younger than those running
};

}  // namespace tessera::batching
