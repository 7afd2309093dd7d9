#include "batching/replicas.h"

#include <algorithm>

namespace tessera::batching {

Replicas::Replicas(const SchedulerOptions& of_each, int64_t count) : claims_(static_cast<size_t>(count)) {
  for (int64_t i = 0; i < count; ++i) schedulers_.push_back(std::make_unique<Scheduler>(of_each));
}

int64_t Replicas::choose(const Submission& submission) const {
  if (count() == 1) return 0;
  std::vector<int64_t> cost;
  for (int64_t i = 0; i < count(); ++i)
    cost.push_back(claims_[static_cast<size_t>(i)] - at(i).known_tokens(submission));
  return std::min_element(cost.begin(), cost.end()) - cost.begin();
}

Status Replicas::submit(Submission submission) {
  const Home home{.replica = choose(submission), .claim = submission.max_length};
  const RequestId id = submission.id;
  TESSERA_RETURN_IF_ERROR(schedulers_[static_cast<size_t>(home.replica)]->submit(std::move(submission)));
  homes_[id] = home;
  claims_[static_cast<size_t>(home.replica)] += home.claim;
  return {};
}

bool Replicas::finish(RequestId id) {
  auto found = homes_.find(id);
  if (found == homes_.end()) return false;
  const Home home = found->second;
  homes_.erase(found);
  claims_[static_cast<size_t>(home.replica)] -= home.claim;
  return schedulers_[static_cast<size_t>(home.replica)]->finish(id);
}

std::vector<Step> Replicas::next_steps() {
  std::vector<Step> steps;
  for (auto& scheduler : schedulers_) steps.push_back(scheduler->next_step());
  return steps;
}

std::vector<RequestId> Replicas::expired(double now) const {
  std::vector<RequestId> all;
  for (const auto& scheduler : schedulers_) {
    auto some = scheduler->expired(now);
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

void Replicas::reset() {
  for (auto& scheduler : schedulers_) scheduler->reset();
}

void Replicas::drop_tier(int64_t tier) {
  for (auto& scheduler : schedulers_) scheduler->drop_tier(tier);
}

bool Replicas::idle() const {
  return std::all_of(schedulers_.begin(), schedulers_.end(), [](const auto& one) { return one->idle(); });
}

ReuseCounters Replicas::reuse() const {
  ReuseCounters all;
  for (const auto& scheduler : schedulers_) {
    all.asked_tokens += scheduler->reuse().asked_tokens;
    all.found_tokens += scheduler->reuse().found_tokens;
  }
  return all;
}

int64_t Replicas::sum(int64_t (Scheduler::*figure)() const) const {
  int64_t all = 0;
  for (const auto& scheduler : schedulers_) all += (*scheduler.*figure)();
  return all;
}

}  // namespace tessera::batching
