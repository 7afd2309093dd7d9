#include "plan/serving/simulator.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "batching/scheduler.h"
#include "plan/serving/memory.h"
#include "plan/serving/step_time.h"

namespace tessera::plan::serving {
namespace {

constexpr size_t kNowhere = std::numeric_limits<size_t>::max();

struct Progress {
  double sent_s = 0, first_s = 0, done_s = 0;
  int64_t answered = 0;
};

batching::SchedulerOptions scheduling_of(const Deployment& d, int64_t block_tokens, size_t requests) {
  // States of linear attention make the first token dear: the pool is counted at a middling length.
  double per_token = (sequence_bytes(d, 8192) / 8192) * static_cast<double>(block_tokens);
  double lanes = static_cast<double>(d.layout.pp);
  batching::SchedulerOptions options;
  double blocks = per_token > 0 ? rank_memory(d).cache / per_token / lanes : 1e6;
  options.blocks = static_cast<int64_t>(std::clamp(blocks, 1.0, 16e6));
  options.block_tokens = block_tokens;
  options.max_batch_tokens = std::max<int64_t>(1, std::llround(d.engine.budget_tokens));
  options.max_running =
      std::min(options.max_batch_tokens, std::max<int64_t>(1, std::llround(d.engine.max_running / lanes)));
  options.max_waiting = static_cast<int64_t>(requests) + 1;
  return options;
}

class Run {
 public:
  Run(const Deployment& d, std::vector<Request> requests, const SimulationOptions& options)
      : model_(d),
        requests_(std::move(requests)),
        progress_(requests_.size()),
        place_(requests_.size(), kNowhere),
        scheduler_(scheduling_of(d, options.block_tokens, requests_.size())),
        users_(static_cast<size_t>(std::max<int64_t>(0, options.users))),
        closed_(options.users > 0) {
    if (!closed_) return;
    for (size_t i = 0; i < requests_.size(); ++i)
      requests_[i].arrival_s = i < users_ ? 0 : std::numeric_limits<double>::infinity();
  }

  Status run() {
    while (done_ < requests_.size()) {
      TESSERA_RETURN_IF_ERROR(submit_arrived());
      if (scheduler_.idle()) {
        now_ = requests_[sent_].arrival_s;
        continue;
      }
      if (!jump()) step();
    }
    return {};
  }

  Simulation report(const SimulationOptions& options) const;
  int64_t steps = 0, preemptions = 0;
  double running_time = 0;

 private:
  double next_arrival() const {
    return sent_ < requests_.size() ? requests_[sent_].arrival_s : std::numeric_limits<double>::infinity();
  }

  Status submit_arrived() {
    for (; sent_ < requests_.size() && requests_[sent_].arrival_s <= now_; ++sent_) {
      const Request& request = requests_[sent_];
      progress_[sent_].sent_s = request.arrival_s;
      int64_t computed = request.prompt - request.cached;
      Status status = scheduler_.submit(static_cast<int64_t>(sent_), computed, computed + request.answer);
      if (!status) return status.error().within(fmt::format("request {}", sent_ + 1));
    }
    return {};
  }

  StepLoad decode_load(int64_t later) const {
    auto count = static_cast<double>(active_.size());
    return {.decode_sequences = count, .decode_context = context_ / count + static_cast<double>(later)};
  }

  // Takes steps that look alike; false when the next one is different.
  bool jump() {
    if (active_.empty()) return false;
    int64_t most = std::numeric_limits<int64_t>::max();
    for (size_t id : active_) most = std::min(most, requests_[id].answer - progress_[id].answered - 1);
    if (most < 2) return false;
    double first = model_.seconds(decode_load(0));
    double free = next_arrival() - now_;
    // Later steps are longer: what fits at the last one's time fits.
    if (std::isfinite(free)) {
      most = std::min(most, static_cast<int64_t>(free / first));
      if (most >= 2) most = std::min(most, static_cast<int64_t>(free / model_.seconds(decode_load(most - 1))));
    }
    int64_t taken = most < 2 ? 0 : scheduler_.uniform_steps(most);
    if (taken < 2 || scheduler_.num_running() != static_cast<int64_t>(active_.size())) return false;
    double last = model_.seconds(decode_load(taken - 1));
    scheduler_.run_uniform(taken);
    for (size_t id : active_) progress_[id].answered += taken;
    auto count = static_cast<double>(active_.size());
    context_ += count * static_cast<double>(taken);
    pass(static_cast<double>(taken) * (first + last) / 2, count);
    steps += taken;
    return true;
  }

  void pass(double seconds, double running) {
    now_ += seconds;
    running_time += seconds * running;
  }

  void step() {
    batching::Step step = scheduler_.next_step();
    StepLoad load;
    double pairs = 0, context = 0;
    for (const batching::StepEntry& entry : step.entries) {
      auto id = static_cast<size_t>(entry.id);
      auto before = static_cast<double>(entry.first + requests_[id].cached),
           count = static_cast<double>(entry.count);
      if (progress_[id].answered > 0 && entry.count == 1) {
        load.decode_sequences += 1;
        context += before;
      } else {
        load.prefill_tokens += count;
        load.prefill_sequences += entry.samples ? 1 : 0;
        pairs += count * (before + count / 2);
      }
    }
    if (load.decode_sequences > 0) load.decode_context = context / load.decode_sequences;
    if (load.prefill_tokens > 0) load.prefill_span = pairs / load.prefill_tokens;
    pass(model_.seconds(load), static_cast<double>(scheduler_.num_running()));
    ++steps;
    preempt(step);
    for (const batching::StepEntry& entry : step.entries)
      if (entry.samples) sample(static_cast<size_t>(entry.id));
    scheduler_.append_to_all();
  }

  void preempt(const batching::Step& step) {
    preemptions += static_cast<int64_t>(step.preempted.size());
    for (batching::RequestId lost : step.preempted) leave(static_cast<size_t>(lost));
  }

  // `active_` holds what decodes in the next step, `context_` the tokens that it has in the cache.
  void leave(size_t id) {
    size_t place = place_[id];
    if (place == kNowhere) return;
    context_ -= cached_tokens(id);
    place_[active_.back()] = place;
    active_[place] = active_.back();
    active_.pop_back();
    place_[id] = kNowhere;
  }
  void enter(size_t id) {
    place_[id] = active_.size();
    active_.push_back(id);
    context_ += cached_tokens(id);
  }
  double cached_tokens(size_t id) const {
    return static_cast<double>(requests_[id].prompt + progress_[id].answered - 1);
  }

  void sample(size_t id) {
    Progress& p = progress_[id];
    bool was_active = place_[id] != kNowhere;
    if (p.answered == 0) p.first_s = now_;
    ++p.answered;
    if (p.answered < requests_[id].answer) {
      if (was_active)
        context_ += 1;
      else
        enter(id);
      return;
    }
    if (was_active) {
      --p.answered;
      leave(id);
      ++p.answered;
    }
    scheduler_.finish(static_cast<batching::RequestId>(id));
    p.done_s = now_;
    ++done_;
    if (closed_ && released_ + users_ < requests_.size()) requests_[users_ + released_++].arrival_s = now_;
  }
  StepModel model_;
  std::vector<Request> requests_;
  std::vector<Progress> progress_;
  std::vector<size_t> place_;  // of a request in active_
  batching::Scheduler scheduler_;
  std::vector<size_t> active_;
  size_t users_;
  bool closed_;
  double now_ = 0, context_ = 0;
  size_t sent_ = 0, done_ = 0, released_ = 0;
};

Simulation Run::report(const SimulationOptions& options) const {
  Simulation s;
  std::vector<double> ttft, tpot, whole;
  double tokens = 0, good = 0;
  for (size_t i = 0; i < requests_.size(); ++i) {
    const Progress& p = progress_[i];
    ttft.push_back(p.first_s - p.sent_s);
    double per_token = p.answered > 1 ? (p.done_s - p.first_s) / static_cast<double>(p.answered - 1) : 0;
    if (p.answered > 1) tpot.push_back(per_token);
    whole.push_back(p.done_s - p.sent_s);
    tokens += static_cast<double>(p.answered);
    bool fast = options.prefill_deadline_s <= 0 || ttft.back() <= options.prefill_deadline_s;
    good += fast && (options.token_deadline_s <= 0 || per_token <= options.token_deadline_s) ? 1 : 0;
  }
  s.requests = static_cast<int64_t>(requests_.size());
  s.ttft_s = percentiles(std::move(ttft));
  s.tpot_s = percentiles(std::move(tpot));
  s.request_s = percentiles(std::move(whole));
  s.seconds = now_;
  s.tokens_per_s = tokens / now_;
  s.mean_running = running_time / now_;
  s.within_deadlines = good / static_cast<double>(s.requests);
  s.steps = steps;
  s.preemptions = preemptions;
  return s;
}

}  // namespace

Percentiles percentiles(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  auto at = [&](double share) {
    auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(values.size())));
    return values[std::clamp<size_t>(rank, 1, values.size()) - 1];
  };
  double sum = 0;
  for (double value : values) sum += value;
  return {.mean = sum / static_cast<double>(values.size()),
          .p50 = at(0.5),
          .p90 = at(0.9),
          .p95 = at(0.95),
          .p99 = at(0.99)};
}

Result<Simulation> simulate(const Deployment& d, const std::vector<Request>& requests,
                            const SimulationOptions& options) {
  TESSERA_RETURN_IF_ERROR(check(d));
  if (requests.empty()) return invalid("no requests to simulate");
  auto lanes = static_cast<size_t>(d.layout.dp * d.layout.pp);
  std::vector<Request> own;
  for (size_t i = 0; i < requests.size(); i += lanes) own.push_back(requests[i]);
  SimulationOptions lane = options;
  if (options.users > 0) lane.users = std::max<int64_t>(1, options.users / static_cast<int64_t>(lanes));
  Run run(d, std::move(own), lane);
  TESSERA_RETURN_IF_ERROR(run.run());
  Simulation s = run.report(options);
  for (double* seconds : {&s.ttft_s.mean, &s.ttft_s.p50, &s.ttft_s.p90, &s.ttft_s.p95, &s.ttft_s.p99})
    *seconds += d.engine.prompt_s;
  s.tokens_per_s *= static_cast<double>(lanes);
  s.tokens_per_s_gpu = s.tokens_per_s / static_cast<double>(d.layout.gpus());
  return s;
}

}  // namespace tessera::plan::serving
