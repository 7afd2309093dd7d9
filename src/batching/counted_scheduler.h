// The policy of scheduler.h in counts, for a simulator: requests of one priority and one tenant that share no
// prefix, whose answers end at a known length. Which blocks a request owns and which rows of a step are whose
// does not matter there, so a step in which everything decodes costs the same for one sequence and for a
// thousand, many such steps are taken at once, and an arrival or an end costs the logarithm of the running
// requests. Steps, admissions and preemptions equal those of Scheduler (tested).
//
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <queue>
#include <span>
#include <vector>

#include "core/result.h"

namespace tessera::batching {

enum class PromptSteps {
  shared,  // prompts and answers share steps: the policy of Scheduler
  alone,   // while a prompt can run, answers wait
};

struct CountedOptions {
  int64_t blocks = 1024;           // of the KV cache
  int64_t block_tokens = 16;       // tokens of one block
  int64_t max_batch_tokens = 512;  // of one step
  int64_t max_running = 64;        // requests that hold blocks; at most max_batch_tokens
  PromptSteps prompts = PromptSteps::shared;
  bool reserves_answers = false;  // admitted when the whole answer fits, which then never yields
};

struct CountedStep {
  struct Chunk {  // of a prompt, or of a preempted request that is computed anew
    size_t request = 0;
    int64_t first = 0, count = 0;  // tokens [first, first + count)
    bool samples = false;          // its last row gives the next token
    bool again = false;            // it had given tokens before
  };
  int64_t decodes = 0;  // sequences that decode one token each
  int64_t context = 0;  // tokens that these have in the cache before the step
  int64_t preempted = 0;
  std::vector<Chunk> chunks;
};

class CountedScheduler {
 public:
  explicit CountedScheduler(CountedOptions options);

  // Requests are numbered from 0 in order of submission. `cached` leading tokens of the prompt, fewer than all,
  // are not computed; they take blocks. Errors: invalid_argument when the request can never fit the cache.
  Status submit(int64_t prompt_tokens, int64_t answer_tokens, int64_t cached = 0);

  // Chooses and runs the next step. The result is valid until the next call. REQUIRES: !idle().
  const CountedStep& next_step();

  // Steps from now in which all running requests decode and nothing else happens; the last may end some. 0:
  // the next step is another one. What is submitted behind waiting requests changes nothing.
  int64_t decode_steps();
  // Runs so many of them. REQUIRES: steps <= decode_steps().
  void run_decodes(int64_t steps);

  // Requests whose answers the last next_step() or run_decodes() has completed.
  std::span<const size_t> ended() const { return ended_; }

  bool idle() const { return running_ == 0 && waiting_.empty(); }
  int64_t num_running() const { return running_; }
  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t num_decoding() const { return decoding_; }
  int64_t context() const { return context_; }  // cached tokens of those that decode
  int64_t num_free() const { return free_; }    // blocks

 private:
  enum class State { waiting, prompt, decoding, ended };
  struct Request {
    int64_t prompt = 0, answer = 0, cached = 0;
    int64_t answered = 0;  // kept while it does not decode
    int64_t computed = 0;  // tokens in the cache, while in `prompt`
    int64_t end_tick = 0;  // while it decodes: the tick at which its answer is complete
    State state = State::waiting;
  };
  struct End {
    int64_t tick;
    size_t request;
    bool operator>(const End& other) const { return tick > other.tick; }
  };

  int64_t answered(const Request& request) const;
  int64_t held_blocks(const Request& request) const;
  size_t phase(const Request& request) const;
  int64_t& growing_at(int64_t tick);
  bool admits_next() const;
  bool prompts_hold_up() const;
  void decode();
  void make_room();
  size_t last_running();
  void preempt_last();
  void run_chunk(size_t id);
  void admit();
  void enter(size_t id);
  void leave(Request& request);
  void finish(size_t id);
  void end_complete();

  CountedOptions options_;
  std::vector<Request> requests_;
  std::deque<size_t> waiting_;     // by arrival: whoever runs came before them
  std::vector<size_t> order_;      // running, by arrival; ended ones are dropped later
  std::optional<size_t> partial_;  // the one whose prompt is not yet whole: always the last running
  std::priority_queue<End, std::vector<End>, std::greater<>> ends_;  // with stale ones of preempted requests
  // Of those that decode, by the ticks (modulo block_tokens) at which they take a block.
  std::vector<int64_t> growing_;
  int64_t tick_ = 0;  // steps in which running requests decoded
  int64_t free_ = 0, running_ = 0, decoding_ = 0, context_ = 0, tokens_ = 0;
  CountedStep step_;
  std::vector<size_t> ended_;
};

}  // namespace tessera::batching
