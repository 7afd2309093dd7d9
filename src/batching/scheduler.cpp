#include "batching/scheduler.h"

#include <algorithm>

namespace tessera::batching {

int64_t Step::tokens() const {
  int64_t sum = 0;
  for (const StepEntry& entry : entries) sum += entry.count;
  return sum;
}

Scheduler::Scheduler(SchedulerOptions options)
    : options_(options), kv_({options.blocks, options.host_blocks, options.disk_blocks}, options.block_tokens) {
  TESSERA_REQUIRE(options.max_running >= 1 && options.max_running <= options.max_batch_tokens,
                  "max_running {} must be from 1 to max_batch_tokens {}", options.max_running,
                  options.max_batch_tokens);
  TESSERA_REQUIRE(options.block_tokens >= 1, "block_tokens is {}", options.block_tokens);
}

Status Scheduler::submit(RequestId id, int64_t prompt_tokens, int64_t max_length) {
  return submit({.id = id, .prompt_tokens = prompt_tokens, .max_length = max_length});
}

Status Scheduler::submit(Submission submission) {
  RequestId id = submission.id;
  int64_t prompt = submission.prompt_tokens;
  TESSERA_REQUIRE(!requests_.contains(id), "request {} is queued already", id);
  TESSERA_REQUIRE(prompt >= 1 && submission.max_length >= prompt, "request {} has {} of {} tokens", id, prompt,
                  submission.max_length);
  TESSERA_REQUIRE(submission.tokens.empty() || std::ssize(submission.tokens) == prompt,
                  "request {} has {} tokens, but {} values", id, prompt, submission.tokens.size());
  TESSERA_REQUIRE(submission.brought_tokens % options_.block_tokens == 0 && submission.brought_tokens < prompt,
                  "request {} of {} tokens brings keys and values of {}", id, prompt,
                  submission.brought_tokens);
  TESSERA_RETURN_IF_ERROR(check_room(submission));
  Request& request = requests_[id];
  request.asked = std::move(submission);
  request.arrival = next_arrival_++;
  request.length = prompt;
  request.kv.salt = request.asked.salt;
  tenants_.enter(request.asked.tenant);
  waiting_.push(&request);
  return {};
}

Status Scheduler::check_room(const Submission& submission) const {
  if (submission.max_length > options_.capacity_tokens())
    return invalid("the request may grow to {} tokens but the KV cache holds {}", submission.max_length,
                   options_.capacity_tokens());
  int64_t room = options_.max_waiting - num_waiting();
  if (room <= 0)
    return make_error(ErrorCode::resource_exhausted, "{} requests are waiting already; try again later",
                      num_waiting());
  int64_t limit = options_.max_waiting_tokens;
  if (limit > 0 && num_waiting() > 0 && waiting_.tokens() + submission.prompt_tokens > limit)
    return make_error(ErrorCode::resource_exhausted,
                      "{} tokens are waiting already, of at most {}; try again later", waiting_.tokens(),
                      limit);
  // A named tenant leaves as many places as it takes, so that others find some.
  if (submission.tenant.empty() || waiting_.size_of(submission.tenant) < room) return {};
  return make_error(ErrorCode::resource_exhausted,
                    "{} requests of this tenant are waiting already and {} places are left for others; try "
                    "again later",
                    waiting_.size_of(submission.tenant), room);
}

Step Scheduler::next_step() {
  Step step;
  step_tokens_ = 0;
  preempted_priority_.reset();
  step.entries.reserve(running_.size() + 1);
  make_room_for_urgent(step);
  schedule_decodes(step);
  schedule_prefills(step);
  admit(step);
  step.moves = kv_.take_moves();
  return step;
}

// Nothing of this step is scheduled yet, so whoever yields has no entry in it.
void Scheduler::make_room_for_urgent(Step& step) {
  const Request* urgent = waiting_.next(tenants_);
  while (urgent && !running_.empty() && running_.back()->asked.priority > urgent->asked.priority &&
         !admits(*urgent))
    preempt_last(step);
}

void Scheduler::schedule_decodes(Step& step) {
  // running_ shrinks from its end while earlier requests take blocks.
  for (size_t i = 0; i < running_.size(); ++i) {
    Request& request = *running_[i];
    if (request.missing() != 1 || !own_blocks(request, step)) continue;
    request.checking = drafts_that_fit(request, std::ssize(running_) - static_cast<int64_t>(i) - 1);
    grow(request, request.length + request.checking);
    schedule(request, 1, step);
    step.entries.back().count += request.checking;
    step.entries.back().drafts = request.checking;
    step_tokens_ += request.checking;
  }
}

// Guesses take what is left: no token of the step from a request that decodes, no block from anyone.
int64_t Scheduler::drafts_that_fit(const Request& request, int64_t decodes_after) const {
  int64_t drafts = std::min({request.drafts, request.asked.max_length - request.length - 1,
                             options_.max_batch_tokens - step_tokens_ - 1 - decodes_after});
  if (drafts <= 0) return 0;
  auto blocks = std::ssize(request.kv.blocks) + kv_.num_available();
  return std::clamp<int64_t>(blocks * options_.block_tokens - request.length, 0, drafts);
}

// A request that decodes in this step misses nothing any more.
void Scheduler::schedule_prefills(Step& step) {
  for (Request* request : running_) {
    int64_t left = options_.max_batch_tokens - step_tokens_, missing = request->missing();
    if (left > 0 && missing > 0) schedule(*request, std::min(left, missing), step);
  }
}

// At least one row must be computed: it gives the next token.
int64_t Scheduler::most_reused_blocks(const Request& request) const {
  if (!request.knows_tokens() || !request.asked.reuse) return 0;
  return (request.length - 1) / options_.block_tokens;
}

bool Scheduler::admits(const Request& request) const {
  if (num_running() >= options_.max_running) return false;
  int64_t free = kv_.num_available() - num_running(), needed = blocks_missing(request, request.length);
  if (needed <= free) return true;
  int64_t most = most_reused_blocks(request);
  if (most == 0 || needed - most > free) return false;
  auto found = kv_.match(request.asked.salt, request.asked.tokens, most);
  return needed - std::ssize(found) + kv_.cost_of(found) <= free;
}

int64_t Scheduler::known_tokens(const Submission& submission) const {
  if (submission.tokens.empty() || !submission.reuse) return 0;
  const int64_t most = (submission.prompt_tokens - 1) / options_.block_tokens;
  return std::ssize(kv_.match(submission.salt, submission.tokens, most)) * options_.block_tokens;
}

bool Scheduler::has_room(int64_t prompt_tokens) const {
  return num_waiting() == 0 && num_running() < options_.max_running &&
         blocks_for(prompt_tokens, options_.block_tokens) + num_running() <= kv_.num_available();
}

void Scheduler::admit(Step& step) {
  while (step_tokens_ < options_.max_batch_tokens) {
    Request* request = waiting_.next(tenants_);
    if (!request || !admits(*request)) return;
    // Who just lost its blocks must not come back in the same step and take them again.
    if (preempted_priority_ && request->asked.priority >= *preempted_priority_) return;
    begin(*request, step);
  }
}

void Scheduler::begin(Request& request, Step& step) {
  waiting_.erase(&request);
  auto after = [](const Request* a, const Request* b) { return a->before(*b); };
  running_.insert(std::upper_bound(running_.begin(), running_.end(), &request, after), &request);
  step.admitted.push_back(request.asked.id);
  const bool is_new = !request.has_run;
  share_prefix(request);
  grow(request, request.length);
  if (is_new) take_brought(request, step);
  schedule(request, std::min(options_.max_batch_tokens - step_tokens_, request.missing()), step);
}

void Scheduler::share_prefix(Request& request) {
  int64_t most = most_reused_blocks(request);
  if (most > 0) {
    auto found = kv_.match(request.asked.salt, request.asked.tokens, most);
    kv_.share(found, request.kv);
    request.computed = std::ssize(found) * options_.block_tokens;
  }
  if (!request.has_run && request.knows_tokens()) {
    request.reused = request.computed;
    reuse_.asked_tokens += request.length;
    reuse_.found_tokens += request.computed;
  }
  request.has_run = true;
  request.charged = std::max(request.charged, request.computed);
}

// Once only: what was brought lies in the cache then, or is computed anew.
void Scheduler::take_brought(Request& request, Step& step) const {
  if (request.asked.brought_tokens <= request.computed) return;
  const int64_t first = request.computed / options_.block_tokens,
                end = request.asked.brought_tokens / options_.block_tokens;
  step.arrivals.push_back({.id = request.asked.id, .first = first, .count = end - first});
  request.computed = request.asked.brought_tokens;
}

void Scheduler::schedule(Request& request, int64_t count, Step& step) {
  step.entries.push_back({.id = request.asked.id,
                          .first = request.computed,
                          .count = count,
                          .samples = request.computed + count == request.length});
  request.computed += count;
  request.drafts = 0;
  step_tokens_ += count;
  if (request.computed > request.charged) {
    tenants_.charge(request.asked.tenant, request.computed - request.charged);
    request.charged = request.computed;
  }
  name_blocks(request);
}

// Blocks are named when their step is planned: whoever finds them reads them in that step or later, after the
// step's keys and values are written.
void Scheduler::name_blocks(Request& request) {
  if (request.knows_tokens()) kv_.name(request.asked.tokens, request.computed, request.kv);
}

// Makes room for the last known token. False when the request itself was the last and lost its blocks.
bool Scheduler::own_blocks(Request& request, Step& step) {
  // Most tokens fall into a block that is there already.
  if (std::ssize(request.kv.blocks) * options_.block_tokens >= request.length) return true;
  while (blocks_missing(request, request.length) > kv_.num_available()) {
    bool itself = running_.back() == &request;
    preempt_last(step);
    if (itself) return false;
  }
  grow(request, request.length);
  return true;
}

void Scheduler::preempt_last(Step& step) {
  const Request& request = *running_.back();
  step.preempted.push_back(request.asked.id);
  preempted_priority_ = std::min(preempted_priority_.value_or(request.asked.priority), request.asked.priority);
  requeue_last();
}

void Scheduler::requeue_last() {
  Request* request = running_.back();
  running_.pop_back();
  kv_.release(request->kv);
  request->computed = request->drafts = request->checking = 0;
  waiting_.push(request);
}

int64_t Scheduler::blocks_missing(const Request& request, int64_t length) const {
  return blocks_for(length, options_.block_tokens) - std::ssize(request.kv.blocks);
}

void Scheduler::grow(Request& request, int64_t length) {
  auto needed = static_cast<size_t>(blocks_for(length, options_.block_tokens));
  while (request.kv.blocks.size() < needed) kv_.take(request.kv);
}

void Scheduler::propose(RequestId id, int64_t drafts) {
  requests_.at(id).drafts = drafts;
}

void Scheduler::append_token(RequestId id) {
  Request& request = requests_.at(id);
  TESSERA_REQUIRE(request.missing() == 0, "request {} has {} tokens to compute before its next one", id,
                  request.missing());
  ++request.length;
  TESSERA_REQUIRE(request.length <= request.asked.max_length, "request {} grows beyond its {} tokens", id,
                  request.asked.max_length);
}

void Scheduler::append_tokens(RequestId id, std::span<const int64_t> tokens) {
  Request& request = requests_.at(id);
  int64_t accepted = std::ssize(tokens) - 1;
  TESSERA_REQUIRE(accepted >= 0 && accepted <= request.checking,
                  "request {} has {} new tokens after {} guesses", id, tokens.size(), request.checking);
  request.length += accepted;
  request.computed += accepted;
  request.checking = 0;
  append_token(id);
  if (!request.knows_tokens()) return;
  request.asked.tokens.insert(request.asked.tokens.end(), tokens.begin(), tokens.end());
  name_blocks(request);
}

bool Scheduler::finish(RequestId id) {
  auto found = requests_.find(id);
  if (found == requests_.end()) return false;
  Request* request = &found->second;
  kv_.release(request->kv);
  tenants_.leave(request->asked.tenant);
  if (std::erase(running_, request) == 0) waiting_.erase(request);
  requests_.erase(found);
  return true;
}

std::vector<RequestId> Scheduler::expired(double now) const {
  std::vector<RequestId> ids;
  waiting_.for_each([&](const Request& request) {
    if (request.asked.end_by <= now || (!request.has_run && request.asked.start_by <= now))
      ids.push_back(request.asked.id);
  });
  for (const Request* request : running_)
    if (request->asked.end_by <= now) ids.push_back(request->asked.id);
  return ids;
}

void Scheduler::reset() {
  while (!running_.empty()) requeue_last();
  kv_.forget();
}

void Scheduler::drop_tier(int64_t tier) {
  while (!running_.empty()) requeue_last();
  kv_.drop_tier(tier);
}

std::span<const BlockId> Scheduler::blocks_of(RequestId id) const {
  return requests_.at(id).kv.blocks;
}

}  // namespace tessera::batching
