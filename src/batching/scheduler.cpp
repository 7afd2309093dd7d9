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
  requests_[id] = {.id = id,
                   .arrival = next_arrival_++,
                   .length = prompt_tokens,
                   .computed = 0,
                   .max_length = max_length,
                   .blocks = {}};
  waiting_.push_back(&requests_[id]);
  return {};
}

Step Scheduler::next_step() {
  Step step;
  step_tokens_ = 0;
  step.entries.reserve(running_.size() + 1);
  schedule_decodes(step);
  schedule_prefills(step);
  // A request that just lost its blocks must not come back in the same step and take them again.
  if (step.preempted.empty()) admit(step);
  return step;
}

void Scheduler::schedule_decodes(Step& step) {
  // running_ shrinks from its young end while older requests take blocks.
  for (size_t i = 0; i < running_.size(); ++i) {
    Request& request = *running_[i];
    if (request.missing() == 1 && own_blocks(request, step)) schedule(request, 1, step);
  }
}

// A request that decodes in this step misses nothing any more.
void Scheduler::schedule_prefills(Step& step) {
  for (Request* request : running_) {
    int64_t left = options_.max_batch_tokens - step_tokens_, missing = request->missing();
    if (left > 0 && missing > 0) schedule(*request, std::min(left, missing), step);
  }
}

bool Scheduler::admits_next() const {
  if (waiting_.empty() || num_running() >= options_.max_running) return false;
  return blocks_for(waiting_.front()->length, options_.block_tokens) + num_running() <= pool_.num_free();
}

void Scheduler::admit(Step& step) {
  while (admits_next()) {
    int64_t left = options_.max_batch_tokens - step_tokens_;
    if (left <= 0) return;
    Request& request = *waiting_.front();
    waiting_.pop_front();
    running_.push_back(&request);
    step.admitted.push_back(request.id);
    grow(request);
    schedule(request, std::min(left, request.missing()), step);
  }
}

void Scheduler::schedule(Request& request, int64_t count, Step& step) {
  step.entries.push_back({.id = request.id,
                          .first = request.computed,
                          .count = count,
                          .samples = request.computed + count == request.length});
  request.computed += count;
  step_tokens_ += count;
}

// Makes room for the last known token. False when the request itself was the youngest and lost its blocks.
bool Scheduler::own_blocks(Request& request, Step& step) {
  // Most tokens fall into a block that is there already.
  if (static_cast<int64_t>(request.blocks.size()) * options_.block_tokens >= request.length) return true;
  while (blocks_missing(request, request.length) > pool_.num_free()) {
    bool itself = running_.back() == &request;
    preempt_youngest(step);
    if (itself) return false;
  }
  grow(request);
  return true;
}

void Scheduler::preempt_youngest(Step& step) {
  Request* request = running_.back();
  release_blocks(*request);
  request->computed = 0;
  running_.pop_back();
  waiting_.push_front(request);
  step.preempted.push_back(request->id);
}

int64_t Scheduler::blocks_missing(const Request& request, int64_t length) const {
  return blocks_for(length, options_.block_tokens) - static_cast<int64_t>(request.blocks.size());
}

void Scheduler::grow(Request& request) {
  auto needed = static_cast<size_t>(blocks_for(request.length, options_.block_tokens));
  while (request.blocks.size() < needed) request.blocks.push_back(pool_.allocate().value());
}

void Scheduler::release_blocks(Request& request) {
  for (BlockId block : request.blocks) pool_.release(block);
  request.blocks.clear();
}

int64_t Scheduler::uniform_steps(int64_t most) const {
  if (running_.empty() || num_running() > options_.max_batch_tokens) return 0;
  for (const Request* request : running_)
    if (request->missing() != 1) return 0;
  // Free blocks only become fewer, so what cannot be admitted now cannot be later.
  if (num_running() < options_.max_batch_tokens && admits_next()) return 0;
  auto fits = [&](int64_t steps) {
    int64_t blocks = 0;
    for (const Request* request : running_) blocks += blocks_missing(*request, request->length + steps - 1);
    return blocks <= pool_.num_free();
  };
  if (most <= 0 || fits(most)) return std::max<int64_t>(most, 0);
  int64_t low = 0, high = most;
  while (high - low > 1) {
    int64_t middle = (low + high) / 2;
    (fits(middle) ? low : high) = middle;
  }
  return low;
}

void Scheduler::run_uniform(int64_t steps) {
  if (steps == 0) return;
  for (Request* request : running_) {
    request->length += steps - 1;
    grow(*request);
    request->length += 1;
    request->computed += steps;
    TESSERA_REQUIRE(request->length <= request->max_length, "request {} grows beyond its {} tokens",
                    request->id, request->max_length);
  }
}

void Scheduler::append_token(RequestId id) {
  Request& request = requests_.at(id);
  TESSERA_REQUIRE(request.missing() == 0, "request {} has {} tokens to compute before its next one", id,
                  request.missing());
  ++request.length;
  TESSERA_REQUIRE(request.length <= request.max_length, "request {} grows beyond its {} tokens", id,
                  request.max_length);
}

int64_t Scheduler::append_to_all() {
  int64_t appended = 0;
  for (Request* request : running_) {
    if (request->missing() != 0) continue;
    TESSERA_REQUIRE(request->length < request->max_length, "request {} grows beyond its {} tokens", request->id,
                    request->max_length);
    ++request->length;
    ++appended;
  }
  return appended;
}

bool Scheduler::finish(RequestId id) {
  auto found = requests_.find(id);
  if (found == requests_.end()) return false;
  release_blocks(found->second);
  Request* request = &found->second;
  if (std::erase(running_, request) == 0) std::erase(waiting_, request);
  requests_.erase(found);
  return true;
}

std::span<const BlockId> Scheduler::blocks_of(RequestId id) const {
  return requests_.at(id).blocks;
}

}  // namespace tessera::batching
