#include "serve/prefill_pool.h"

#include <algorithm>
#include <chrono>

#include "core/log.h"

namespace tessera::serve {

using batching::RequestId;
using batching::Submission;

namespace {

// Room of so many bytes, given back when the last copy goes.
std::shared_ptr<void> take_room(std::shared_ptr<std::atomic<int64_t>> used, int64_t bytes) {
  *used += bytes;
  return {nullptr, [used = std::move(used), bytes](void*) { *used -= bytes; }};
}

}  // namespace

PrefillPool::PrefillPool(std::vector<std::unique_ptr<Team>> workers, const Options& options)
    : teams_(std::move(workers)), options_(options) {}

PrefillPool::~PrefillPool() {
  stop();
}

void PrefillPool::start(int64_t block_tokens, int64_t block_bytes, Done done) {
  block_tokens_ = block_tokens;
  block_bytes_ = block_bytes;
  done_ = std::move(done);
  stopping_ = false;
  counters_.workers = std::ssize(teams_);
  for (auto& team : teams_) {
    team->on_loss([this] {
      { std::lock_guard lock(mutex_); }  // who is about to wait sees the loss
      changed_.notify_all();
    });
    threads_.emplace_back([this, team = team.get()] { run(*team); });
  }
}

void PrefillPool::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (auto& team : teams_) team->give_up();
  for (auto& thread : threads_) thread.join();
  threads_.clear();
  teams_.clear();  // at once: workers end now, and nobody is to replace them
}

bool PrefillPool::wants(const Submission& submission, int64_t known_tokens) const {
  if (submission.tokens.empty() || !submission.reuse || submission.prompt_tokens > options_.most_tokens ||
      submission.prompt_tokens - known_tokens < std::max(options_.least_tokens, block_tokens_ + 1))
    return false;
  std::lock_guard lock(mutex_);
  return !stopping_ && counters_.workers > 0;
}

bool PrefillPool::add(const Submission& submission) {
  {
    std::lock_guard lock(mutex_);
    if (stopping_ || counters_.workers == 0) return false;
    batching::Request& job = jobs_[submission.id];
    job.asked = submission;
    job.arrival = submission.id;
    job.length = submission.prompt_tokens;
    tenants_.enter(submission.tenant);
    queue_.push(&job);
  }
  changed_.notify_all();
  return true;
}

void PrefillPool::forget(RequestId id) {
  std::lock_guard lock(mutex_);
  if (jobs_.contains(id)) remove(id);
}

// REQUIRES: the lock, and that it waits.
void PrefillPool::remove(RequestId id) {
  batching::Request& job = jobs_.at(id);
  queue_.erase(&job);
  tenants_.leave(job.asked.tenant);
  jobs_.erase(id);
}

double PrefillPool::wait_s(const Submission& submission) const {
  std::lock_guard lock(mutex_);
  const auto rate = tokens_per_s_ * static_cast<double>(std::max<int64_t>(counters_.workers, 1));
  return rate > 0 ? static_cast<double>(queue_.tokens() + submission.prompt_tokens) / rate : 0;
}

PrefillPool::Counters PrefillPool::counters() const {
  std::lock_guard lock(mutex_);
  Counters counters = counters_;
  for (const auto& team : teams_) counters.losses += team->num_losses();
  return counters;
}

void PrefillPool::run(Team& team) {
  while (true) {
    Status status;
    if (auto loss = team.loss()) {
      status = *loss;
    } else if (auto job = next_job(team)) {
      Result<BroughtKv> brought = compute(team, *job);
      if (!brought) status = brought.error();
      finish(job->id, std::move(brought));
    } else if (!team.loss()) {
      std::unique_lock lock(mutex_);
      const Command command = stopping_ ? Command::stop : Command::idle;
      lock.unlock();
      status = send_order(*team.groups().world, command);
      if (command == Command::stop) return;
    }
    if (!status.ok() && !meet_again(team, status.error())) return;
  }
}

// None when there was nothing to do for a while, the pool stops, or the worker is lost.
std::optional<Submission> PrefillPool::next_job(Team& team) {
  std::unique_lock lock(mutex_);
  // Room comes back without a word, so it is looked for.
  constexpr auto kLook = std::chrono::milliseconds(20);
  const auto start = Clock::now();
  auto has_job = [this] { return queue_.size() > 0 && *waiting_bytes_ < options_.most_bytes; };
  while (!stopping_ && !team.loss() && !has_job()) {
    if (seconds_since(start) > options_.idle_announcement_s) return std::nullopt;
    if (queue_.size() > 0)
      changed_.wait_for(lock, kLook);
    else
      changed_.wait_for(lock, std::chrono::duration<double>(options_.idle_announcement_s));
  }
  if (stopping_ || team.loss()) return std::nullopt;
  const Submission job = queue_.next(tenants_)->asked;
  tenants_.charge(job.tenant, job.prompt_tokens);
  remove(job.id);
  return job;
}

// At least one token of the prompt stays for the decoder: its row gives the first token of the answer.
Result<BroughtKv> PrefillPool::compute(Team& team, const Submission& submission) {
  BroughtKv brought{.bytes = {}, .blocks = (submission.prompt_tokens - 1) / block_tokens_, .room = {}};
  const auto bytes = brought.blocks * block_bytes_;
  brought.room = take_room(waiting_bytes_, bytes);
  brought.bytes.resize(static_cast<size_t>(bytes));
  PrefillJob job{.tokens = submission.tokens, .salt = submission.salt};
  job.tokens.resize(static_cast<size_t>(brought.blocks * block_tokens_));
  Group& group = *team.groups().world;
  const auto start = Clock::now();
  TESSERA_RETURN_IF_ERROR(send_order(group, Command::step, job));
  TESSERA_RETURN_IF_ERROR(receive_blocks(group, block_bytes_, brought.bytes));
  count_time(std::ssize(job.tokens), seconds_since(start));
  return brought;
}

void PrefillPool::count_time(int64_t tokens, double seconds) {
  constexpr double kNew = 0.1;  // part of the newest prompt in the mean
  const double rate = static_cast<double>(tokens) / std::max(seconds, 1e-6);
  std::lock_guard lock(mutex_);
  tokens_per_s_ = tokens_per_s_ > 0 ? (1 - kNew) * tokens_per_s_ + kNew * rate : rate;
}

void PrefillPool::finish(RequestId id, Result<BroughtKv> brought) {
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    if (brought) {
      ++counters_.prompts;
      counters_.bytes += std::ssize(brought->bytes);
    } else {
      ++counters_.failed;
    }
  }
  done_(id, brought ? std::optional(std::move(*brought)) : std::nullopt);
}

// False when this worker does not come back, or the pool stops.
bool PrefillPool::meet_again(Team& team, const Error& error) {
  std::unique_lock lock(mutex_);
  if (stopping_) return false;
  const bool was_last = --counters_.workers == 0;
  lock.unlock();
  log(LogLevel::warn, "a prefill worker is away, the decoder computes prompts meanwhile: {}", error.message);
  if (was_last) hand_back_all();
  Status met = team.meet();
  lock.lock();
  if (stopping_) return false;
  if (!met.ok()) {
    log(LogLevel::error, "a prefill worker is given up: {}", met.error().message);
    return false;
  }
  ++counters_.workers;
  return true;
}

void PrefillPool::hand_back_all() {
  std::vector<RequestId> ids;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [id, job] : jobs_) ids.push_back(id);
  }
  for (RequestId id : ids) {
    forget(id);
    finish(id, make_error(ErrorCode::unavailable, "no prefill worker is there"));
  }
}

}  // namespace tessera::serve
