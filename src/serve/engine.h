// Runs a model for many requests at once: admit, pack one step, run it on all ranks, choose tokens, deliver.
// A request's tokens do not depend on the others.
//
// Rank 0 owns an Engine; the other ranks of its layout call follow_engine(). Replicas of the layout attend to
// different requests, each with a queue and a cache of its own, and take every step together.
//
// A step that fails, because a rank was lost or for another reason, loses the cache and no request: the ranks
// meet again, and every request that ran is computed anew from its tokens. What its reader has got stays true,
// since a choice depends on (tokens, seed, position) only. A request whose steps fail again and again without a
// token in between ends with an error.
//
// Threads: submit(), cancel(), gauges(), health(), failure() and metrics() from any thread; the steps run on
// the engine's own.
#pragma once

#include <condition_variable>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "batching/replicas.h"
#include "batching/wait_predictor.h"
#include "serve/answer.h"
#include "serve/draft_model.h"
#include "serve/metrics.h"
#include "serve/prefill_pool.h"
#include "serve/request_trace.h"
#include "serve/step_runner.h"
#include "serve/team.h"

namespace tessera::serve {

struct EngineOptions {
  batching::SchedulerOptions scheduling;  // of each replica
  std::filesystem::path kv_folder;        // of the disk tier's file; empty: the system's for temporary files
  int64_t max_length = 0;                 // tokens of one prompt and its answer; 0: the model's positions
  std::vector<int64_t> end_tokens;        // besides the model's own
  // Of one request in one step; by what stands in the text already (guesses.h), or by the model's
  // multi-token-prediction layer where it was loaded (mtp_draft.h).
  int64_t max_guesses = 0;
  std::shared_ptr<DraftModel> draft;  // makes the guesses instead
  double ttft_objective_s = 0;        // refuses what would get its first token later; 0: nothing
  double queue_timeout_s = 0;         // a request that has not run by then fails; 0: it waits
  double timeout_s = 0;               // a request that has not ended by then fails; 0: it goes on
  int64_t max_losses = 3;             // failed steps of one request without a new token; then it fails
  PrefillPool* prefill = nullptr;     // of one process; computes long prompts; outlives the engine
  double idle_announcement_s = 5;     // how often rank 0 tells the others that there is nothing to do
  std::function<void(const RequestSummary&)> on_finished;  // called by the thread that ended it
  std::function<void(const Error&)> on_failure;            // the engine cannot go on; called once
};

// Whether requests get on: what probes of an operator ask for.
struct EngineHealth {
  bool alive = true;    // false: only a restart of the server helps
  bool ready = true;    // false: requests are taken, but nothing is computed now
  std::string reason;   // when not ready
  double step_s = 0;    // so long the step under way has been running
  int64_t losses = 0;   // ranks that were lost so far
  int64_t retries = 0;  // requests that were computed anew after a failed step
};

class Engine {
 public:
  // `model`, `team` (whose ranks have met) and `tokenizer` must outlive the engine. Allocates the KV cache and
  // starts the thread.
  static Result<std::unique_ptr<Engine>> start(ServedModel& model, Team& team, data::TokenizerPtr tokenizer,
                                               EngineOptions options);
  ~Engine();  // cancels what is left

  // Queues all requests or none. Each `notify` runs on the engine's thread whenever there is something to take.
  // Errors: invalid_argument (too long, empty; names the limit), resource_exhausted (the queue is full, or the
  // first token would come later than the objective), unavailable (the engine failed). A request whose time is
  // over ends with deadline_exceeded.
  using Completions = std::vector<std::shared_ptr<Completion>>;
  Result<Completions> submit(std::vector<CompletionRequest> requests, std::function<void()> notify);

  // Ends a request and frees its KV blocks before it returns; false when it ended before.
  bool cancel(int64_t id);
  void cancel_all();

  // When a refused client should come back: the predicted wait, at least 1.
  int64_t retry_after_s() const;
  int64_t max_length() const { return options_.max_length; }
  const std::vector<int64_t>& end_tokens() const { return options_.end_tokens; }
  Gauges gauges() const;
  EngineHealth health() const;
  std::optional<Error> failure() const;
  const Metrics& metrics() const { return metrics_; }
  const RequestTrace& trace() const { return trace_; }

 private:
  using AnswerPtr = std::shared_ptr<Answer>;
  struct Arrival {
    std::optional<BroughtKv> brought;
    int64_t first = 0;                       // block of the prompt
    std::vector<batching::BlockId> targets;  // of this and those behind it
  };
  struct Share {  // of one replica
    batching::Step step;
    std::vector<AnswerPtr> answers;  // of step.entries
    std::vector<Arrival> arrivals;
  };
  struct Work {  // one step between planning it and delivering it
    std::vector<Share> shares;
    std::vector<StepBatch> batches;
    bool empty() const;
    std::vector<AnswerPtr> answers() const;
  };

  Engine(ServedModel& model, Team& team, data::TokenizerPtr tokenizer, EngineOptions options,
         StepRunner runner);
  void run();
  Status run_one(std::unique_lock<std::mutex>& lock);
  Status wait_for_work(std::unique_lock<std::mutex>& lock);
  Status run_step(std::unique_lock<std::mutex>& lock);
  Status recover(std::unique_lock<std::mutex>& lock, const std::vector<AnswerPtr>& affected,
                 const Error& error);
  void lose_disk_tier();
  Status meet_again(std::unique_lock<std::mutex>& lock);
  void give_up_on_unlucky(std::unique_lock<std::mutex>& lock, const std::vector<AnswerPtr>& affected,
                          const Error& error);
  void end_with(std::unique_lock<std::mutex>& lock, const std::vector<int64_t>& ids,
                const std::function<Error(const Answer&)>& error);
  Work plan_step();
  Share plan_share(batching::Step step);
  void put_in_place(const Work& work);
  std::future<void> prepare_choices(const Work& work) const;
  Status enter(const batching::Submission& submission);
  bool leave(int64_t id);
  void came(int64_t id, std::optional<BroughtKv> brought);
  bool nothing_to_do() const { return scheduler_.idle() && awaited_.empty(); }
  void end_gap();
  void guess();
  void guess_ahead(Work& work);
  void keep_hidden(const batching::StepEntry& entry, Answer& answer, int64_t row, int64_t right) const;
  void draft(std::unique_lock<std::mutex>& lock);
  int64_t choose(const batching::StepEntry& entry, const AnswerPtr& answer, int64_t row,
                 const at::Tensor& logits, Answer::Row& first);
  static std::vector<Answer::Row> look_at_rows(const Share& share, const at::Tensor& logits);
  StepBatch make_batch(const Share& share) const;
  void add_entry(const batching::StepEntry& entry, const Answer& answer, StepBatch& batch) const;
  void deliver(const Work& work, const std::vector<at::Tensor>& logits);
  int64_t deliver_entry(const batching::StepEntry& entry, const AnswerPtr& answer, int64_t& row,
                        const at::Tensor& logits, std::vector<Answer::Row>& looked_at);
  void settle(int64_t id, const AnswerPtr& answer, int64_t new_tokens, std::optional<FinishReason> reason);
  void count_token(Answer& answer);
  void trace_step(const Work& work, Clock::time_point start, Clock::time_point computed);
  void trace_end(const Answer& answer, const RequestSummary& summary);
  void report(int64_t id, const Answer& answer, const std::string& reason);
  void fail(const Error& error);
  Status check(const CompletionRequest& request) const;
  Status check_wait(const std::vector<batching::Submission>& submissions) const;
  double wait_of(const batching::Submission& submission) const;
  batching::Submission submission_of(int64_t id, const CompletionRequest& request) const;
  void expire(std::unique_lock<std::mutex>& lock);
  bool forget(int64_t id);
  double now_s() const { return seconds_since(started_); }
  Status check_rules(const CompletionRequest& request) const;

  const ServedModel& model_;
  Team& team_;
  data::TokenizerPtr tokenizer_;
  EngineOptions options_;
  StepRunner runner_;
  Metrics metrics_;
  RequestTrace trace_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  batching::Replicas scheduler_;
  std::vector<batching::WaitPredictor> waits_;  // of each replica
  Clock::time_point started_ = Clock::now();
  std::map<int64_t, AnswerPtr> answers_;
  std::map<int64_t, batching::Submission> awaited_;  // their prompts are with a prefill worker
  int64_t next_id_ = 1;
  bool stopping_ = false;
  std::optional<Error> failure_;
  std::optional<Error> recovering_;  // from what
  int64_t retries_ = 0, kv_demoted_ = 0, kv_promoted_ = 0;
  std::optional<Clock::time_point> step_since_;  // of the step under way
  double longest_step_s_ = 0;
  std::optional<Clock::time_point> computed_;  // the pass before, while there is work; the engine's thread only
  std::thread thread_;
};

// Runs the steps that rank 0 announces until it stops. For every other rank of the layout; `runner` is
// connected with its groups. After an error the groups are of no use; rank 0 calls for others.
Status follow_engine(StepRunner& runner, const RankGroups& groups);

}  // namespace tessera::serve
