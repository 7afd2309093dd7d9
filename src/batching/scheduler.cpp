#include "batching/scheduler.h"

#include <algorithm>

namespace tessera::batching {

int64_t Step::tokens() const {
  int64_t sum = 0;
  for (const StepEntry& entry : entries) sum += entry.count;
  return sum;
}

Scheduler::Scheduler(SchedulerOptions options) : options_(options), pool_(options.blocks) {
  TESSERA_REQUIRE(options.max_running >= 1 && options.max_running <= options.max_batch_tokens,
                  "max_running {} must be from 1 to max_batch_tokens {}", options.max_running,
                  options.max_batch_tokens);
  TESSERA_REQUIRE(options.block_tokens >= 1, "block_tokens is {}", options.block_tokens);
}

Status Scheduler::submit(RequestId id, int64_t prompt_tokens, int64_t max_length) {
  TESSERA_REQUIRE(!requests_.contains(id), "request {} is queued already", id);
  TESSERA_REQUIRE(prompt_tokens >= 1 && max_length >= prompt_tokens, "request {} has {} of {} tokens", id,
                  prompt_tokens, max_length);
  if (max_length > options_.capacity_tokens())
    return invalid("the request may grow to {} tokens but the KV cache holds {}", max_length,
                   options_.capacity_tokens());
  if (num_waiting() >= options_.max_waiting)
    return make_error(ErrorCode::resource_exhausted, "{} requests are waiting already; try again later",
                      num_waiting());
  requests_[id] = {.arrival = next_arrival_++, .length = prompt_tokens, .max_length = max_length};
  waiting_.push_back(id);
  return {};
}

Step Scheduler::next_step() {
  Step step;
  schedule_decodes(step);
  schedule_prefills(step);
  // A request that just lost its blocks must not come back in the same step and take them again.
  if (step.preempted.empty()) admit(step);
  return step;
}

void Scheduler::schedule_decodes(Step& step) {
  // running_ shrinks from its young end while older requests take blocks.
  for (size_t i = 0; i < running_.size(); ++i) {
    RequestId id = running_[i];
    if (requests_.at(id).missing() != 1) continue;
    if (own_blocks(id, step)) schedule(id, 1, step);
  }
}

void Scheduler::schedule_prefills(Step& step) {
  for (RequestId id : running_) {
    int64_t left = options_.max_batch_tokens - step.tokens();
    int64_t missing = requests_.at(id).missing();
    bool scheduled = std::any_of(step.entries.begin(), step.entries.end(),
                                 [id](const StepEntry& entry) { return entry.id == id; });
    if (left > 0 && missing > 0 && !scheduled) schedule(id, std::min(left, missing), step);
  }
}

void Scheduler::admit(Step& step) {
  while (!waiting_.empty() && num_running() < options_.max_running) {
    int64_t left = options_.max_batch_tokens - step.tokens();
    RequestId id = waiting_.front();
    Request& request = requests_.at(id);
    int64_t needed = blocks_for(request.length, options_.block_tokens);
    if (left <= 0 || needed + num_running() > pool_.num_free()) return;
    waiting_.pop_front();
    running_.push_back(id);
    step.admitted.push_back(id);
    grow(request);
    schedule(id, std::min(left, request.missing()), step);
  }
}

void Scheduler::schedule(RequestId id, int64_t count, Step& step) {
  Request& request = requests_.at(id);
  step.entries.push_back({.id = id,
                          .first = request.computed,
                          .count = count,
                          .samples = request.computed + count == request.length});
  request.computed += count;
}

// Makes room for the last known token. False when the request itself was the youngest and lost its blocks.
bool Scheduler::own_blocks(RequestId id, Step& step) {
  Request& request = requests_.at(id);
  int64_t needed = blocks_for(request.length, options_.block_tokens);
  while (needed - static_cast<int64_t>(request.blocks.size()) > pool_.num_free()) {
    bool itself = running_.back() == id;
    preempt_youngest(step);
    if (itself) return false;
  }
  grow(request);
  return true;
}

void Scheduler::preempt_youngest(Step& step) {
  RequestId id = running_.back();
  Request& request = requests_.at(id);
  release_blocks(request);
  request.computed = 0;
  running_.pop_back();
  waiting_.push_front(id);
  step.preempted.push_back(id);
}

void Scheduler::grow(Request& request) {
  auto needed = static_cast<size_t>(blocks_for(request.length, options_.block_tokens));
  while (request.blocks.size() < needed) request.blocks.push_back(pool_.allocate().value());
}

void Scheduler::release_blocks(Request& request) {
  for (BlockId block : request.blocks) pool_.release(block);
  request.blocks.clear();
}

void Scheduler::append_token(RequestId id) {
  Request& request = requests_.at(id);
  TESSERA_REQUIRE(request.missing() == 0, "request {} has {} tokens to compute before its next one", id,
                  request.missing());
  ++request.length;
  TESSERA_REQUIRE(request.length <= request.max_length, "request {} grows beyond its {} tokens", id,
                  request.max_length);
}

bool Scheduler::finish(RequestId id) {
  auto found = requests_.find(id);
  if (found == requests_.end()) return false;
  release_blocks(found->second);
  std::erase(running_, id);
  std::erase(waiting_, id);
  requests_.erase(found);
  return true;
}

std::span<const BlockId> Scheduler::blocks_of(RequestId id) const {
  return requests_.at(id).blocks;
}

}  // namespace tessera::batching
