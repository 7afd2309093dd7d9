// Prompts computed by processes of their own, so that long ones do not hold up the answers under way (as in
// DistServe and Splitwise). A prefill worker computes the whole blocks of a prompt and sends their keys and
// values; the decoder puts them in place when the request first runs, and computes what is left of the prompt.
//
// Bits: keys and values depend on the tokens only (model.h), so answers are those of one process. What a worker
// does not bring, because it is lost or all are, the decoder computes: nothing waits for a lost worker.
//
// Who is next is the policy's choice (batching/waiting_queue.h), over the prompt tokens given to workers.
// Threads: any; one more for each worker.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "batching/scheduler.h"
#include "serve/brought_kv.h"
#include "serve/prefill_wire.h"
#include "serve/team.h"

namespace tessera::serve {

class PrefillPool {
 public:
  struct Options {
    int64_t least_tokens = 64;              // prompts that have fewer to compute are not worth the way
    int64_t most_tokens = 0;                // more do not fit a worker's cache
    int64_t most_bytes = int64_t{1} << 30;  // of keys and values that wait for the decoder
    double idle_announcement_s = 5;         // how often idle workers hear that there is nothing to do
  };
  // Each team: this process and one worker, which have met.
  PrefillPool(std::vector<std::unique_ptr<Team>> workers, const Options& options);
  ~PrefillPool();

  // What came of a job: nothing when the decoder has to compute the prompt. On a thread of the pool.
  using Done = std::function<void(batching::RequestId, std::optional<BroughtKv>)>;
  void start(int64_t block_tokens, int64_t block_bytes, Done done);
  void stop();  // Done is not called any more

  // Whether a worker should compute this prompt, of which the decoder has `known_tokens` in its cache.
  bool wants(const batching::Submission& submission, int64_t known_tokens) const;
  // False when the last worker has gone since.
  bool add(const batching::Submission& submission);
  void forget(batching::RequestId id);  // Done may still be called for it

  // Seconds until the keys and values of a new prompt would be here; zero as long as nothing is known.
  double wait_s(const batching::Submission& submission) const;

  struct Counters {
    int64_t workers = 0;  // that are there now
    int64_t prompts = 0, bytes = 0;
    int64_t failed = 0;  // prompts that came back without keys and values
    int64_t losses = 0;  // of workers
  };
  Counters counters() const;

 private:
  void run(Team& team);
  std::optional<batching::Submission> next_job(Team& team);
  Result<BroughtKv> compute(Team& team, const batching::Submission& submission);
  void count_time(int64_t tokens, double seconds);
  bool meet_again(Team& team, const Error& error);
  void remove(batching::RequestId id);
  void hand_back_all();
  void finish(batching::RequestId id, Result<BroughtKv> brought);

  std::vector<std::unique_ptr<Team>> teams_;
  Options options_;
  int64_t block_tokens_ = 16, block_bytes_ = 0;
  Done done_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = true;
  std::map<batching::RequestId, batching::Request> jobs_;  // that wait for a worker
  batching::WaitingQueue queue_;
  batching::Tenants tenants_;
  Counters counters_;
  double tokens_per_s_ = 0;  // of one worker, of its last prompts
  std::shared_ptr<std::atomic<int64_t>> waiting_bytes_ = std::make_shared<std::atomic<int64_t>>(0);
  std::vector<std::thread> threads_;
};

}  // namespace tessera::serve
