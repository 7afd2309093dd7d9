#include "serve/engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/log.h"

namespace tessera::serve {

using batching::StepEntry;

namespace {

// Requests are there but none can run: until one comes, goes or is late.
constexpr auto kNothingRuns = std::chrono::milliseconds(10);

// Keys and values depend on the adapter.
std::string salt_of(const CompletionRequest& request) {
  return request.adapter < 0 ? request.cache_salt
                             : fmt::format("adapter {}:{}", request.adapter, request.cache_salt);
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::start(ServedModel& model, Team& team, data::TokenizerPtr tokenizer,
                                              EngineOptions options) {
  if (model.spec().encoder)
    return invalid("this model is an encoder: it gives no text but embeddings; serve it with `tessera embed`");
  auto& scheduling = options.scheduling;
  TESSERA_ASSIGN_OR_RETURN(auto runner, StepRunner::make(model, scheduling, options.kv_folder));
  if (!runner.disk().ok()) {
    log(LogLevel::warn, "{}; the server goes on without its disk tier", runner.disk().error().message);
    scheduling.disk_blocks = 0;
  }
  int64_t limit = std::min(model.spec().max_positions, scheduling.capacity_tokens());
  options.max_length = options.max_length > 0 ? std::min(options.max_length, limit) : limit;
  if (model.spec().eos) options.end_tokens.push_back(*model.spec().eos);
  return std::unique_ptr<Engine>(
      new Engine(model, team, std::move(tokenizer), std::move(options), std::move(runner)));
}

Engine::Engine(ServedModel& model, Team& team, data::TokenizerPtr tokenizer, EngineOptions options,
               StepRunner runner)
    : model_(model),
      team_(team),
      tokenizer_(std::move(tokenizer)),
      options_(std::move(options)),
      runner_(std::move(runner)),
      metrics_(options_.max_length),
      scheduler_(options_.scheduling, model.place().replicas),
      waits_(static_cast<size_t>(model.place().replicas)) {
  runner_.connect(team_.groups());
  team_.on_loss([this] {
    { std::lock_guard lock(mutex_); }  // who is about to wait sees the loss
    changed_.notify_all();
  });
  thread_ = std::thread([this] { run(); });
  if (options_.prefill)
    options_.prefill->start(runner_.block_tokens(), runner_.block_bytes(),
                            [this](int64_t id, auto brought) { came(id, std::move(brought)); });
}

Engine::~Engine() {
  if (options_.prefill) options_.prefill->stop();
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  cancel_all();
  changed_.notify_all();
  team_.give_up();
  thread_.join();
  team_.on_loss({});
}

Status Engine::check(const CompletionRequest& request) const {
  auto prompt = std::ssize(request.prompt);
  if (prompt == 0) return invalid("the prompt is empty; it needs at least one token");
  for (int64_t token : request.prompt)
    if (token < 0 || token >= model_.spec().vocab)
      return invalid("token {} of the prompt is outside the vocabulary of {} tokens", token,
                     model_.spec().vocab);
  TESSERA_RETURN_IF_ERROR(check_rules(request));
  if (request.max_length() <= options_.max_length) return {};
  return invalid(
      "this model's maximum context length is {} tokens, but {} were asked for ({} in the prompt, {} in the "
      "completion); shorten the prompt or max_tokens",
      options_.max_length, request.max_length(), prompt, request.max_tokens);
}

Status Engine::check_rules(const CompletionRequest& request) const {
  for (auto [token, bias] : request.rules.bias)
    if (token < 0 || token >= model_.spec().vocab)
      return invalid("token {} of logit_bias is outside the vocabulary of {} tokens", token,
                     model_.spec().vocab);
  for (int64_t token : request.end_tokens)
    if (token < 0 || token >= model_.spec().vocab)
      return invalid("end token {} is outside the vocabulary of {} tokens", token, model_.spec().vocab);
  return {};
}

Result<Engine::Completions> Engine::submit(std::vector<CompletionRequest> requests,
                                           std::function<void()> notify) {
  for (const auto& request : requests) TESSERA_RETURN_IF_ERROR(check(request));
  std::lock_guard lock(mutex_);
  if (failure_) return *failure_;
  if (stopping_) return make_error(ErrorCode::unavailable, "the server is shutting down");
  int64_t room = options_.scheduling.max_waiting - scheduler_.num_waiting() - std::ssize(awaited_);
  if (std::ssize(requests) > room) {
    metrics_.count_rejected(std::ssize(requests));
    return make_error(ErrorCode::resource_exhausted,
                      "the queue has room for {} more requests, but {} came; try again later", room,
                      requests.size());
  }
  std::vector<batching::Submission> submissions;
  for (const auto& request : requests) submissions.push_back(submission_of(next_id_++, request));
  if (Status wait = check_wait(submissions); !wait.ok()) {
    metrics_.count_rejected(std::ssize(requests));
    return wait.error();
  }
  std::vector<double> predicted_s;
  for (const auto& submission : submissions) predicted_s.push_back(wait_of(submission));
  for (size_t i = 0; i < submissions.size(); ++i) {
    Status status = enter(submissions[i]);
    if (status.ok()) continue;
    for (size_t k = 0; k < i; ++k) leave(submissions[k].id);
    return status.error();
  }
  Completions completions;
  for (size_t i = 0; i < requests.size(); ++i) {
    CompletionRequest& request = requests[i];
    int64_t id = submissions[i].id;
    completions.push_back(std::make_shared<Completion>(id, notify));
    auto answer =
        std::make_shared<Answer>(std::move(request), completions.back(), tokenizer_, options_.end_tokens);
    answer->guess_length = GuessLength(options_.max_guesses);
    answer->predicted_s = predicted_s[i];
    const int64_t replica = awaited_.contains(id) ? 0 : scheduler_.replica_of(id);
    waits_[static_cast<size_t>(replica)].claimed(submissions[i]);
    answers_[id] = std::move(answer);
  }
  changed_.notify_all();
  return completions;
}

bool Engine::cancel(int64_t id) {
  AnswerPtr answer;
  {
    std::lock_guard lock(mutex_);
    // A step under way may still write to these blocks; nobody owns them anew before that step has ended.
    auto found = answers_.find(id);
    if (found == answers_.end()) return false;
    answer = found->second;
    forget(id);
  }
  answer->completion().add({.finished = true, .reason = FinishReason::cancelled});
  report(id, *answer, to_string(FinishReason::cancelled));
  return true;
}

void Engine::cancel_all() {
  std::vector<int64_t> left;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [id, answer] : answers_) left.push_back(id);
  }
  for (int64_t id : left) cancel(id);
}

// Its blocks are free, and its claim is back if it had any. REQUIRES: the lock.
bool Engine::forget(int64_t id) {
  auto found = answers_.find(id);
  if (found == answers_.end()) return false;
  if (found->second->first_step)
    waits_[static_cast<size_t>(scheduler_.replica_of(id))].claim_ended(found->second->request().max_length());
  answers_.erase(found);
  return leave(id);
}

// REQUIRES: the lock.
Status Engine::enter(const batching::Submission& submission) {
  const int64_t known = scheduler_.at(scheduler_.choose(submission)).known_tokens(submission);
  if (!options_.prefill || !options_.prefill->wants(submission, known) || !options_.prefill->add(submission))
    return scheduler_.submit(submission);
  awaited_.emplace(submission.id, submission);
  return {};
}

// REQUIRES: the lock.
bool Engine::leave(int64_t id) {
  if (awaited_.erase(id) == 0) return scheduler_.finish(id);
  options_.prefill->forget(id);
  return true;
}

// A prefill worker has computed the prompt, or did not get to it.
void Engine::came(int64_t id, std::optional<BroughtKv> brought) {
  std::unique_lock lock(mutex_);
  auto awaited = awaited_.extract(id);
  if (awaited.empty()) return;  // cancelled
  batching::Submission& submission = awaited.mapped();
  if (brought) {
    submission.brought_tokens = brought->blocks * runner_.block_tokens();
    answers_.at(id)->brought = std::move(brought);
  }
  Status status = scheduler_.submit(submission);
  changed_.notify_all();
  if (!status.ok()) end_with(lock, {id}, [&](const Answer&) { return status.error(); });
}

batching::Submission Engine::submission_of(int64_t id, const CompletionRequest& request) const {
  auto limit = [this](double own, double fallback) {
    double seconds = own > 0 ? own : fallback;
    return seconds > 0 ? now_s() + seconds : batching::kNever;
  };
  return {.id = id,
          .prompt_tokens = std::ssize(request.prompt),
          .max_length = request.max_length(),
          .tokens = request.prompt,
          // The logits of every row are wanted.
          .reuse = !(request.prompt_logprobs || (request.echo && request.logprobs)),
          .salt = salt_of(request),
          .priority = request.priority,
          .tenant = request.tenant,
          .start_by = limit(request.queue_timeout_s, options_.queue_timeout_s),
          .end_by = limit(request.timeout_s, options_.timeout_s)};
}

Status Engine::check_wait(const std::vector<batching::Submission>& submissions) const {
  if (options_.ttft_objective_s <= 0) return {};
  for (const auto& submission : submissions) {
    double wait_s = waits_[static_cast<size_t>(scheduler_.choose(submission))].likely_s(wait_of(submission));
    if (wait_s > options_.ttft_objective_s)
      return make_error(
          ErrorCode::resource_exhausted,
          "the first token would come after about {:.2g} s, later than the {:.3g} s that this server "
          "promises; try again later",
          wait_s, options_.ttft_objective_s);
  }
  return {};
}

double Engine::wait_of(const batching::Submission& submission) const {
  const int64_t replica = scheduler_.choose(submission);
  const auto& scheduler = scheduler_.at(replica);
  double wait_s = waits_[static_cast<size_t>(replica)].first_token_s(scheduler, submission);
  if (options_.prefill && options_.prefill->wants(submission, scheduler.known_tokens(submission)))
    wait_s += options_.prefill->wait_s(submission);
  return wait_s;
}

int64_t Engine::retry_after_s() const {
  std::lock_guard lock(mutex_);
  double wait_s = wait_of({.prompt_tokens = 1, .max_length = 1});
  return std::clamp<int64_t>(std::llround(wait_s), 1, 60);
}

Gauges Engine::gauges() const {
  const auto prefill = options_.prefill ? options_.prefill->counters() : PrefillPool::Counters();
  std::lock_guard lock(mutex_);
  return {.running = scheduler_.num_running(),
          .waiting = scheduler_.num_waiting() + std::ssize(awaited_),
          .kv_usage = static_cast<double>(scheduler_.blocks_in_use()) /
                      static_cast<double>(options_.scheduling.blocks * scheduler_.count()),
          .prefix_queries = scheduler_.reuse().asked_tokens,
          .prefix_hits = scheduler_.reuse().found_tokens,
          .kv_demoted = kv_demoted_,
          .kv_promoted = kv_promoted_,
          .worker_losses = team_.num_losses() + prefill.losses,
          .retries = retries_,
          .prefills = prefill.prompts,
          .prefill_bytes = prefill.bytes,
          .prefill_failures = prefill.failed};
}

void Engine::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    Status status = run_one(lock);
    if (status.ok() || stopping_) continue;
    lock.unlock();
    return fail(status.error());
  }
  lock.unlock();
  // A rank that is gone already has nothing to be told, nor have those that could not meet again.
  if (Group* world = team_.groups().world) (void)announce(*world, Command::stop, {});
}

Status Engine::run_one(std::unique_lock<std::mutex>& lock) {
  if (auto loss = team_.loss()) return recover(lock, {}, *loss);
  if (nothing_to_do()) return wait_for_work(lock);
  expire(lock);
  return run_step(lock);
}

Status Engine::wait_for_work(std::unique_lock<std::mutex>& lock) {
  computed_.reset();
  auto pause = std::chrono::duration<double>(options_.idle_announcement_s);
  auto has_news = [this] { return stopping_ || !nothing_to_do() || team_.loss(); };
  if (changed_.wait_for(lock, pause, has_news)) return {};
  lock.unlock();
  Status status = announce(*team_.groups().world, Command::idle, {});
  lock.lock();
  return status.ok() ? status : recover(lock, {}, status.error());
}

Status Engine::run_step(std::unique_lock<std::mutex>& lock) {
  if (options_.draft && options_.max_guesses > 0) draft(lock);
  auto planning = Clock::now();
  Work work = plan_step();
  if (work.empty()) {
    computed_.reset();
    changed_.wait_for(lock, kNothingRuns);
    return {};
  }
  auto start = Clock::now();
  trace_.add({"schedule", 0, planning, start, std::ssize(work.answers())});
  step_since_ = start;
  lock.unlock();
  Status status = announce(*team_.groups().world, Command::step, work.batches);
  Result<bool> moved = status.ok() ? runner_.move(work.batches) : status.error();
  if (moved && !*moved) {
    lock.lock();
    lose_disk_tier();
    return {};
  }
  if (moved) put_in_place(work);
  if (moved && model_.has_mtp()) guess_ahead(work);
  std::future<void> prepared = prepare_choices(work);
  end_gap();
  Result<std::vector<at::Tensor>> logits = moved ? runner_.forward(work.batches) : moved.error();
  auto computed = Clock::now();
  computed_ = computed;
  if (prepared.valid()) prepared.get();
  if (logits) deliver(work, *logits);
  trace_step(work, start, computed);
  lock.lock();
  step_since_.reset();
  if (!logits) return recover(lock, work.answers(), logits.error());
  double seconds = seconds_since(start);
  longest_step_s_ = std::max(longest_step_s_, seconds);
  int64_t tokens = 0;
  for (size_t i = 0; i < waits_.size(); ++i) {
    tokens += work.shares[i].step.tokens();
    waits_[i].step_ended(seconds, work.shares[i].step.tokens(),
                         scheduler_.at(static_cast<int64_t>(i)).num_waiting() > 0);
  }
  metrics_.count_step(tokens);
  return {};
}

// Nothing is computed since the last pass, though there was work.
void Engine::end_gap() {
  if (auto since = std::exchange(computed_, std::nullopt)) metrics_.step_gap(seconds_since(*since));
}

Engine::Work Engine::plan_step() {
  if (options_.max_guesses > 0 && !options_.draft) guess();
  Work work;
  for (batching::Step& step : scheduler_.next_steps()) {
    work.shares.push_back(plan_share(std::move(step)));
    work.batches.push_back(make_batch(work.shares.back()));
  }
  return work;
}

Engine::Share Engine::plan_share(batching::Step step) {
  Share share{.step = std::move(step)};
  auto now = Clock::now();
  for (int64_t id : share.step.admitted) {
    Answer& answer = *answers_.at(id);
    if (!answer.first_step) {
      metrics_.count_prompt_tokens(std::ssize(answer.request().prompt));
      answer.set_cached_tokens(scheduler_.reused_tokens(id));
      answer.first_step = now;
    }
  }
  for (const auto& [id, first, count] : share.step.arrivals) {
    const auto targets =
        scheduler_.blocks_of(id).subspan(static_cast<size_t>(first), static_cast<size_t>(count));
    share.arrivals.push_back({.brought = std::move(answers_.at(id)->brought),
                              .first = first,
                              .targets = {targets.begin(), targets.end()}});
  }
  for (int64_t id : share.step.admitted) answers_.at(id)->brought.reset();  // what came was in the cache
  for (size_t i = 0; i < share.step.preempted.size(); ++i) metrics_.count_preemption();
  for (const auto& move : share.step.moves) ++(move.to_tier > move.from_tier ? kv_demoted_ : kv_promoted_);
  for (const StepEntry& entry : share.step.entries) share.answers.push_back(answers_.at(entry.id));
  return share;
}

// Keys and values that came from prefill workers.
void Engine::put_in_place(const Work& work) {
  for (const Share& share : work.shares)
    for (const Arrival& arrival : share.arrivals)
      runner_.write_blocks(
          std::span(arrival.brought->bytes).subspan(static_cast<size_t>(arrival.first * runner_.block_bytes())),
          arrival.targets);
}

// Masks of grammars can cost as much as a step: they are found beside it. None when there are none.
std::future<void> Engine::prepare_choices(const Work& work) const {
  std::vector<AnswerPtr> constrained;
  for (const Share& share : work.shares)
    for (size_t i = 0; i < share.answers.size(); ++i)
      if (share.step.entries[i].samples && share.answers[i]->has_constraint())
        constrained.push_back(share.answers[i]);
  if (constrained.empty()) return {};
  return std::async(std::launch::async, [constrained, vocab = model_.spec().vocab] {
    for (const AnswerPtr& answer : constrained) answer->prepare(vocab);
  });
}

bool Engine::Work::empty() const {
  return std::all_of(shares.begin(), shares.end(),
                     [](const Share& share) { return share.step.entries.empty() && share.step.moves.empty(); });
}

std::vector<Engine::AnswerPtr> Engine::Work::answers() const {
  std::vector<AnswerPtr> all;
  for (const Share& share : shares) all.insert(all.end(), share.answers.begin(), share.answers.end());
  return all;
}

StepBatch Engine::make_batch(const Share& share) const {
  StepBatch batch{.moves = share.step.moves};
  for (const StepEntry& entry : share.step.entries)
    batch.max_blocks = std::max<int64_t>(batch.max_blocks, std::ssize(scheduler_.blocks_of(entry.id)));
  for (size_t i = 0; i < share.step.entries.size(); ++i)
    add_entry(share.step.entries[i], *share.answers[i], batch);
  if (!model_.adapters().empty())
    for (const AnswerPtr& answer : share.answers) batch.adapter.push_back(answer->request().adapter);
  return batch;
}

void Engine::add_entry(const StepEntry& entry, const Answer& answer, StepBatch& batch) const {
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < entry.count; ++i) {
    const auto at = static_cast<size_t>(entry.first + i), known = answer.tokens().size();
    const bool chooses = entry.samples && i + 1 >= entry.count - entry.drafts;
    if (answer.wants_prompt_logprobs() || chooses) batch.wanted.push_back(batch.num_tokens() + i);
    tokens.push_back(at < known ? answer.tokens()[at] : answer.guesses[at - known]);
  }
  add_sequence(batch, {.tokens = tokens, .first = entry.first, .blocks = scheduler_.blocks_of(entry.id)},
               runner_.block_tokens());
}

Status follow_engine(StepRunner& runner, const RankGroups& groups) {
  while (true) {
    TESSERA_ASSIGN_OR_RETURN(Followed followed, follow(*groups.world));
    if (followed.command == Command::stop) return {};
    if (followed.command == Command::idle) continue;
    TESSERA_ASSIGN_OR_RETURN(bool moved, runner.move(followed.batches));
    if (!moved) continue;
    TESSERA_RETURN_IF_ERROR(runner.forward(followed.batches));
  }
}

}  // namespace tessera::serve
