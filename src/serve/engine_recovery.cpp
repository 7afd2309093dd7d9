// What the engine does when something goes wrong: a step that fails, a rank that is lost, a request whose time
// is over.
#include <future>

#include "core/log.h"
#include "serve/engine.h"

namespace tessera::serve {

namespace {

constexpr auto kLook = std::chrono::milliseconds(20);  // at deadlines while the ranks meet

// A step this long is no step any more: much longer than any before.
double stuck_after_s(double longest_step_s) {
  constexpr double kFirst = 60, kLeast = 5, kTimesLongest = 4;
  return longest_step_s > 0 ? std::max(kLeast, kTimesLongest * longest_step_s) : kFirst;
}

}  // namespace

std::optional<Error> Engine::failure() const {
  std::lock_guard lock(mutex_);
  return failure_;
}

EngineHealth Engine::health() const {
  EngineHealth health{.losses = team_.num_losses()};
  auto loss = team_.loss();
  std::lock_guard lock(mutex_);
  health.retries = retries_;
  double step_s = health.step_s = step_since_ ? seconds_since(*step_since_) : 0;
  if (failure_)
    health.reason = failure_->message;
  else if (recovering_ || loss)
    health.reason = fmt::format("the ranks meet again after: {}", (recovering_ ? recovering_ : loss)->message);
  else if (stopping_)
    health.reason = "the server is shutting down";
  else if (step_s > stuck_after_s(longest_step_s_))
    health.reason = fmt::format("a step has been running for {:.1f} s, the longest before took {:.2f} s",
                                step_s, longest_step_s_);
  health.ready = health.reason.empty();
  health.alive = !failure_.has_value();
  return health;
}

// The cache and the group are lost, the requests are not. REQUIRES: the lock.
Status Engine::recover(std::unique_lock<std::mutex>& lock, const std::vector<AnswerPtr>& affected,
                       const Error& error) {
  log(LogLevel::warn, "{}; {} running requests are computed again", error.message, scheduler_.num_running());
  recovering_ = error;
  retries_ += scheduler_.num_running();
  scheduler_.reset();
  give_up_on_unlucky(lock, affected, error);
  auto start = Clock::now();
  TESSERA_RETURN_IF_ERROR(meet_again(lock));
  recovering_.reset();
  log(LogLevel::info, "all ranks are back after {:.2f} s", seconds_since(start));
  return {};
}

// What lies on a disk that fails may be needed by any request. REQUIRES: the lock.
void Engine::lose_disk_tier() {
  constexpr int64_t kDisk = 2;
  log(LogLevel::warn, "the server goes on without its disk tier; {} running requests are computed again",
      scheduler_.num_running());
  step_since_.reset();
  retries_ += scheduler_.num_running();
  scheduler_.drop_tier(kDisk);
}

// Time limits hold meanwhile.
Status Engine::meet_again(std::unique_lock<std::mutex>& lock) {
  lock.unlock();
  auto meeting = std::async(std::launch::async, [this] { return team_.meet(); });
  while (meeting.wait_for(kLook) != std::future_status::ready) {
    lock.lock();
    expire(lock);
    lock.unlock();
  }
  Status met = meeting.get();
  if (met.ok()) runner_.connect(team_.groups());
  lock.lock();
  return met;
}

// A request that is in every step that fails may be what makes them fail.
void Engine::give_up_on_unlucky(std::unique_lock<std::mutex>& lock, const std::vector<AnswerPtr>& affected,
                                const Error& error) {
  std::vector<int64_t> unlucky;
  for (const AnswerPtr& answer : affected)
    if (++answer->losses >= options_.max_losses) unlucky.push_back(answer->completion().id());
  end_with(lock, unlucky, [&](const Answer&) {
    return make_error(
        ErrorCode::unavailable,
        "{} steps of this request failed one after the other, the last one so: {}; it is not tried "
        "again",
        options_.max_losses, error.message);
  });
}

// Requests whose time is over end with an error.
void Engine::expire(std::unique_lock<std::mutex>& lock) {
  const double now = now_s();
  std::vector<int64_t> late = scheduler_.expired(now);
  for (const auto& [id, submission] : awaited_)
    if (std::min(submission.start_by, submission.end_by) <= now) late.push_back(id);
  end_with(lock, late, [](const Answer& answer) {
    return make_error(ErrorCode::deadline_exceeded, "the request {} within its {:.3g} s; try again later",
                      answer.first_step ? "did not end" : "did not start", seconds_since(answer.arrival));
  });
}

// They hear of it without the lock.
void Engine::end_with(std::unique_lock<std::mutex>& lock, const std::vector<int64_t>& ids,
                      const std::function<Error(const Answer&)>& error) {
  std::map<int64_t, AnswerPtr> ended;
  for (int64_t id : ids) {
    auto found = answers_.find(id);
    if (found == answers_.end()) continue;  // cancelled
    ended.insert(*found);
    forget(id);
  }
  if (ended.empty()) return;
  lock.unlock();
  for (const auto& [id, answer] : ended) {
    report(id, *answer, "error");
    answer->completion().add({.finished = true, .error = error(*answer)});
  }
  lock.lock();
}

// Every request ends with the error; later ones are refused with it.
void Engine::fail(const Error& error) {
  std::map<int64_t, AnswerPtr> left;
  {
    std::lock_guard lock(mutex_);
    failure_ = error;
    left.swap(answers_);
    for (const auto& [id, answer] : left) leave(id);
  }
  for (const auto& [id, answer] : left) {
    report(id, *answer, "error");
    answer->completion().add({.finished = true, .error = error});
  }
  if (options_.on_failure) options_.on_failure(error);
}

}  // namespace tessera::serve
