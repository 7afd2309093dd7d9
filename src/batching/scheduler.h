// Which tokens of which requests run in the next step of a server. The policy has no clock (times are passed
// in) and looks at tokens only to find prompts that begin alike. The planner's simulation runs it in counts
// (counted_scheduler.h).
//
// A request owns `length` known tokens (prompt and generated so far), of which the first `computed` have their
// keys and values in the cache. A step computes a run of the others; when it reaches the last known token, that
// row gives the next one (`samples`), which the caller reports by append_token() or finish(). Guessed tokens
// may follow the last known one (propose()): their rows are computed in the same step, and append_tokens() says
// how many were right.
//
// Policy. Requests stand in order of priority, then arrival:
//   1. a waiting request more urgent than a running one takes its place when there is no other;
//   2. one token of every decoding request, first ones first, with guesses as far as tokens and blocks are
//   left;
//      when blocks run out, the last running request loses its blocks and waits again (what is still in the
//      cache when it comes back is not computed again);
//   3. then prefill chunks of running requests up to the token budget;
//   4. then waiting requests are admitted, each when the cache has blocks for all its known tokens and one
//   spare
//      block for every running request. Who is next (waiting_queue.h) is never overtaken.
// Among requests of equal priority and tenant nobody starves: only later ones yield to earlier ones, and a
// request that could never fit the cache is refused at submit().
//
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "batching/request.h"
#include "batching/tenants.h"
#include "batching/waiting_queue.h"
#include "core/result.h"

namespace tessera::batching {

struct SchedulerOptions {
  int64_t blocks = 1024;           // of the KV cache
  int64_t block_tokens = 16;       // tokens of one block
  int64_t max_batch_tokens = 512;  // tokens of one step
  int64_t max_running = 64;        // requests that hold blocks; at most max_batch_tokens
  int64_t max_waiting = 256;       // submit() refuses beyond
  int64_t max_waiting_tokens = 0;  // the same in known tokens of those that wait; 0: no limit
  int64_t host_blocks = 0;         // of the second tier, in host memory
  int64_t disk_blocks = 0;         // of the third, on disk

  int64_t capacity_tokens() const { return blocks * block_tokens; }
};

// Tokens [first, first + count) of one request, at absolute positions.
struct StepEntry {
  RequestId id = 0;
  int64_t first = 0, count = 0;
  bool samples = false;  // the last row that is no guess gives the next token
  int64_t drafts = 0;    // so many of the tokens, the last ones, are guesses
};

// Blocks [first, first + count) of a request that begins: to be filled with what the caller has of them.
struct KvArrival {
  RequestId id = 0;
  int64_t first = 0, count = 0;
};

struct Step {
  std::vector<StepEntry> entries;
  std::vector<RequestId> admitted;   // hold blocks from this step on
  std::vector<RequestId> preempted;  // lost their blocks; they run again by themselves
  std::vector<KvMove> moves;         // to be done, in order, before the entries run
  std::vector<KvArrival> arrivals;   // the same, after the moves
  int64_t tokens() const;
};

struct ReuseCounters {
  int64_t asked_tokens = 0, found_tokens = 0;
};

class Scheduler {
 public:
  explicit Scheduler(SchedulerOptions options);

  // Queues a request. Errors: invalid_argument when max_length can never fit the cache; resource_exhausted when
  // the queue is full, or its tenant has as many places in it as are left for others.
  Status submit(Submission submission);
  Status submit(RequestId id, int64_t prompt_tokens, int64_t max_length);

  // Chooses and accounts the next step: its tokens count as computed. Empty when there is nothing to do.
  Step next_step();

  // The next step may check so many guesses after the last known token of `id`; its entry says how many it
  // does.
  void propose(RequestId id, int64_t drafts);
  // The sampled row of `id` gave a token and the request goes on. With values when the submission had them.
  void append_token(RequestId id);
  // The guesses up to the last of `tokens` were right, and the row after them gave that last one.
  void append_tokens(RequestId id, std::span<const int64_t> tokens);
  // Forgets a request, waiting or running, and frees its blocks at once. False when it is not known.
  bool finish(RequestId id);

  // Requests whose time is over at `now`: they have not run by start_by, or not ended by end_by. They stay
  // until finish().
  std::vector<RequestId> expired(double now) const;
  // The cache has lost its content: every running request waits again and is computed anew.
  void reset();
  // The same, and from now on no blocks go to this tier, above 0: its memory or disk has failed.
  void drop_tier(int64_t tier);

  // Blocks of a running request: its token at position p lies in blocks[p / block_tokens].
  std::span<const BlockId> blocks_of(RequestId id) const;
  // Prompt tokens that were in the cache when it first ran.
  int64_t reused_tokens(RequestId id) const { return requests_.at(id).reused; }
  const ReuseCounters& reuse() const { return reuse_; }

  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }
  int64_t num_waiting() const { return waiting_.size(); }
  // Tokens that waiting requests as urgent as a new one may grow to: those of its tenant, and all.
  WaitingQueue::Claims claims_ahead(int64_t priority, const std::string& tenant) const {
    return waiting_.claims(priority, tenant);
  }
  // Tokens of a new request's prompt that it would find in the cache.
  int64_t known_tokens(const Submission& submission) const;
  // Whether a new request of so many tokens would run in the next step.
  bool has_room(int64_t prompt_tokens) const;
  bool idle() const { return running_.empty() && waiting_.size() == 0; }
  // Blocks that requests own; the others are free or can be made free at once.
  int64_t blocks_in_use() const { return options_.blocks - kv_.num_available(); }
  const BlockPool& pool() const { return kv_.pool(); }
  const SchedulerOptions& options() const { return options_; }

 private:
  Status check_room(const Submission& submission) const;
  void make_room_for_urgent(Step& step);
  void schedule_decodes(Step& step);
  void schedule_prefills(Step& step);
  void admit(Step& step);
  void begin(Request& request, Step& step);
  void schedule(Request& request, int64_t count, Step& step);
  int64_t drafts_that_fit(const Request& request, int64_t decodes_after) const;
  bool own_blocks(Request& request, Step& step);
  void preempt_last(Step& step);
  void requeue_last();
  void grow(Request& request, int64_t length);
  void share_prefix(Request& request);
  void take_brought(Request& request, Step& step) const;
  void name_blocks(Request& request);
  bool admits(const Request& request) const;
  int64_t blocks_missing(const Request& request, int64_t length) const;
  int64_t most_reused_blocks(const Request& request) const;

  SchedulerOptions options_;
  KvCache kv_;
  Tenants tenants_;
  ReuseCounters reuse_;
  int64_t next_arrival_ = 0;
  int64_t step_tokens_ = 0;                    // of the step that is being chosen
  std::optional<int64_t> preempted_priority_;  // the most urgent that lost its blocks in this step
  std::unordered_map<RequestId, Request> requests_;
  // They point into requests_, whose elements do not move.
  std::vector<Request*> running_;  // in order of Request::before
  WaitingQueue waiting_;
};

}  // namespace tessera::batching
