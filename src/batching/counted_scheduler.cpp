#include "batching/counted_scheduler.h"

#include <algorithm>

#include "batching/kv_blocks.h"

namespace tessera::batching {

CountedScheduler::CountedScheduler(CountedOptions options)
    : options_(options), growing_(static_cast<size_t>(std::max<int64_t>(1, options.block_tokens))) {
  TESSERA_REQUIRE(options.max_running >= 1 && options.max_running <= options.max_batch_tokens,
                  "max_running {} must be from 1 to max_batch_tokens {}", options.max_running,
                  options.max_batch_tokens);
  TESSERA_REQUIRE(options.block_tokens >= 1, "block_tokens is {}", options.block_tokens);
  free_ = options.blocks;
}

Status CountedScheduler::submit(int64_t prompt_tokens, int64_t answer_tokens, int64_t cached) {
  TESSERA_REQUIRE(prompt_tokens > cached && cached >= 0 && answer_tokens >= 1,
                  "a request of {} tokens, {} of them cached, with an answer of {}", prompt_tokens, cached,
                  answer_tokens);
  int64_t capacity = options_.blocks * options_.block_tokens;
  if (prompt_tokens + answer_tokens > capacity)
    return invalid("the request may grow to {} tokens but the KV cache holds {}", prompt_tokens + answer_tokens,
                   capacity);
  waiting_.push_back(requests_.size());
  requests_.push_back({.prompt = prompt_tokens, .answer = answer_tokens, .cached = cached});
  return {};
}

const CountedStep& CountedScheduler::next_step() {
  step_.decodes = step_.context = step_.preempted = 0;
  step_.chunks.clear();
  ended_.clear();
  tokens_ = 0;
  if (!prompts_hold_up()) decode();
  if (partial_) run_chunk(*partial_);
  admit();
  if (step_.decodes > 0) ++tick_;
  for (const CountedStep::Chunk& chunk : step_.chunks)
    if (chunk.samples) enter(chunk.request);
  end_complete();
  return step_;
}

int64_t CountedScheduler::answered(const Request& request) const {
  return request.state == State::decoding ? request.answer - (request.end_tick - tick_) : request.answered;
}

// The last known token of a request that decodes gets its place in the step that computes it.
int64_t CountedScheduler::held_blocks(const Request& request) const {
  if (options_.reserves_answers) return blocks_for(request.prompt + request.answer, options_.block_tokens);
  int64_t length = request.prompt + answered(request);
  return blocks_for(request.state == State::decoding ? length - 1 : length, options_.block_tokens);
}

// A block is taken at the ticks t at which (cached tokens at tick t) is a multiple of block_tokens.
size_t CountedScheduler::phase(const Request& request) const {
  int64_t cached = request.prompt + answered(request) - 1, of = options_.block_tokens;
  return static_cast<size_t>(((tick_ - cached) % of + of) % of);
}

int64_t& CountedScheduler::growing_at(int64_t tick) {
  return growing_[static_cast<size_t>(tick % options_.block_tokens)];
}

// As Scheduler::admits(): one block stays free for every running request.
bool CountedScheduler::admits_next() const {
  if (waiting_.empty() || running_ >= options_.max_running) return false;
  const Request& next = requests_[waiting_.front()];
  if (options_.reserves_answers) return held_blocks(next) <= free_;
  return blocks_for(next.prompt + next.answered, options_.block_tokens) <= free_ - running_;
}

bool CountedScheduler::prompts_hold_up() const {
  return options_.prompts == PromptSteps::alone && (partial_ || admits_next());
}

void CountedScheduler::decode() {
  if (growing_at(tick_) > free_)
    make_room();
  else
    free_ -= growing_at(tick_);
  step_.decodes = decoding_;
  step_.context = context_;
  context_ += decoding_;
  tokens_ = decoding_;
}

// Earlier requests take their blocks first; the last running yields, itself in the end.
void CountedScheduler::make_room() {
  std::erase_if(order_, [&](size_t id) { return requests_[id].state == State::ended; });
  for (size_t i = 0; i < order_.size(); ++i) {
    const Request& request = requests_[order_[i]];
    auto now = static_cast<size_t>(tick_ % options_.block_tokens);
    if (request.state != State::decoding || phase(request) != now) continue;
    while (free_ < 1 && i < order_.size()) preempt_last();
    if (i < order_.size()) --free_;
  }
}

size_t CountedScheduler::last_running() {
  while (requests_[order_.back()].state == State::ended) order_.pop_back();
  return order_.back();
}

void CountedScheduler::preempt_last() {
  size_t id = last_running();
  Request& request = requests_[id];
  leave(request);
  order_.pop_back();
  if (partial_ == id) partial_.reset();
  request.state = State::waiting;
  waiting_.push_front(id);
  ++step_.preempted;
}

// Gives back what a running request holds. Its `answered` is then what counts.
void CountedScheduler::leave(Request& request) {
  free_ += held_blocks(request);
  --running_;
  if (request.state != State::decoding) return;
  if (!options_.reserves_answers) --growing_[phase(request)];
  --decoding_;
  request.answered = answered(request);
  context_ -= request.prompt + request.answered - 1;
}

void CountedScheduler::run_chunk(size_t id) {
  Request& request = requests_[id];
  int64_t length = request.prompt + request.answered;
  int64_t count = std::min(options_.max_batch_tokens - tokens_, length - request.computed);
  if (count <= 0) return;
  bool whole = request.computed + count == length;
  step_.chunks.push_back({.request = id,
                          .first = request.computed,
                          .count = count,
                          .samples = whole,
                          .again = request.answered > 0});
  request.computed += count;
  tokens_ += count;
  if (whole)
    partial_.reset();
  else
    partial_ = id;
}

void CountedScheduler::admit() {
  // Who just lost its blocks must not come back in the same step and take them again.
  while (tokens_ < options_.max_batch_tokens && step_.preempted == 0 && admits_next()) {
    size_t id = waiting_.front();
    waiting_.pop_front();
    Request& request = requests_[id];
    request.state = State::prompt;
    request.computed = request.cached;
    free_ -= held_blocks(request);
    ++running_;
    order_.push_back(id);
    run_chunk(id);
  }
}

// Its prompt is whole and gave a token.
void CountedScheduler::enter(size_t id) {
  Request& request = requests_[id];
  ++request.answered;
  if (request.answered == request.answer) {
    --request.answered;  // the last token is never computed
    finish(id);
    return;
  }
  request.end_tick = tick_ + request.answer - request.answered;
  request.state = State::decoding;
  if (!options_.reserves_answers) ++growing_[phase(request)];
  ++decoding_;
  context_ += request.prompt + request.answered - 1;
  ends_.push({request.end_tick, id});
}

void CountedScheduler::finish(size_t id) {
  leave(requests_[id]);
  requests_[id].state = State::ended;
  ended_.push_back(id);
  if (std::ssize(order_) <= 2 * running_ + 64) return;
  std::erase_if(order_, [&](size_t other) { return requests_[other].state == State::ended; });
}

void CountedScheduler::end_complete() {
  for (; !ends_.empty() && ends_.top().tick <= tick_; ends_.pop()) {
    const Request& request = requests_[ends_.top().request];
    if (request.state == State::decoding && request.end_tick == ends_.top().tick) finish(ends_.top().request);
  }
}

int64_t CountedScheduler::decode_steps() {
  if (decoding_ == 0 || partial_ || admits_next()) return 0;
  auto is_stale = [&](const End& end) {
    const Request& request = requests_[end.request];
    return request.state != State::decoding || request.end_tick != end.tick;
  };
  while (is_stale(ends_.top())) ends_.pop();
  int64_t steps = ends_.top().tick - tick_, of = options_.block_tokens;
  if (options_.reserves_answers || decoding_ * (steps / of + 1) <= free_) return steps;
  int64_t rounds = std::min(steps / of, free_ / decoding_), free = free_ - rounds * decoding_;
  int64_t taken = rounds * of;
  for (; taken < steps; ++taken) {
    free -= growing_at(tick_ + taken);
    if (free < 0) break;
  }
  return taken;
}

void CountedScheduler::run_decodes(int64_t steps) {
  ended_.clear();
  int64_t of = options_.block_tokens;
  if (!options_.reserves_answers) free_ -= steps / of * decoding_;
  for (int64_t step = steps / of * of; step < steps; ++step) free_ -= growing_at(tick_ + step);
  context_ += decoding_ * steps;
  tick_ += steps;
  end_complete();
}

}  // namespace tessera::batching
