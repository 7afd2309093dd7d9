#include "plan/serving/lane.h"

#include <algorithm>
#include <cmath>

#include "plan/serving/memory.h"

namespace tessera::plan::serving {

Lane::Lane(const Deployment& d, int64_t block_tokens)
    : model_(d),
      unit_(d.speculation.tokens_per_step()),
      decode_(model_, unit_),
      scheduler_(scheduling(d, block_tokens)) {}

batching::CountedOptions Lane::scheduling(const Deployment& d, int64_t block_tokens) const {
  // States of linear attention make the first token dear: the pool is counted at a middling length.
  double block_bytes = sequence_bytes(d, 8192) / 8192 * static_cast<double>(block_tokens) * unit_;
  auto stages = static_cast<double>(d.layout.pp);
  double blocks = block_bytes > 0 ? rank_memory(d).cache / block_bytes / stages : 1e6;
  batching::CountedOptions options;
  options.blocks = static_cast<int64_t>(std::clamp(blocks, 1.0, 16e6));
  options.block_tokens = block_tokens;
  options.max_batch_tokens = std::max<int64_t>(1, std::llround(d.engine.budget_tokens / unit_));
  options.max_running =
      std::min(options.max_batch_tokens, std::max<int64_t>(1, std::llround(d.engine.max_running / stages)));
  options.reserves_answers = d.engine.reserves_output;
  if (d.engine.prefill == PrefillPolicy::first) options.prompts = batching::PromptSteps::alone;
  return options;
}

Status Lane::submit(int64_t prompt, int64_t answer, int64_t cached, double now) {
  auto units = [&](int64_t tokens) {
    return unit_ == 1 ? tokens : static_cast<int64_t>(std::ceil(static_cast<double>(tokens) / unit_));
  };
  int64_t prompt_units = units(prompt);
  bool heads_the_queue = scheduler_.num_waiting() == 0;
  TESSERA_RETURN_IF_ERROR(
      scheduler_.submit(prompt_units, 1 + units(answer - 1), std::min(units(cached), prompt_units - 1)));
  if (!decodes_ || !heads_the_queue) return {};
  int64_t decoding = scheduler_.num_decoding();
  run_ = decode_.steps_for(decoding, mean_context(), now - start_s_, run_);
  end_s_ = start_s_ + decode_.seconds(decoding, mean_context(), run_);
  return {};
}

double Lane::mean_context() const {
  return unit_ * static_cast<double>(scheduler_.context()) / static_cast<double>(scheduler_.num_decoding());
}

// A chunk of one token is a row like those that decode.
double Lane::step_seconds(const batching::CountedStep& step) const {
  StepLoad load{.decode_sequences = static_cast<double>(step.decodes)};
  double pairs = 0, context = unit_ * static_cast<double>(step.context);
  for (const batching::CountedStep::Chunk& chunk : step.chunks) {
    double first = unit_ * static_cast<double>(chunk.first), count = unit_ * static_cast<double>(chunk.count);
    if (chunk.count == 1 && chunk.first > 0) {
      load.decode_sequences += 1;
      context += first;
    } else {
      load.prefill_tokens += count;
      load.prefill_sequences += chunk.samples ? 1 : 0;
      pairs += count * (first + count / 2);
    }
  }
  if (load.decode_sequences > 0) load.decode_context = context / load.decode_sequences;
  if (load.prefill_tokens > 0) load.prefill_span = pairs / load.prefill_tokens;
  return model_.seconds(load);
}

void Lane::plan(double now) {
  start_s_ = now;
  end_s_ = kNever;
  if (scheduler_.idle()) return;
  run_ = scheduler_.decode_steps();
  decodes_ = run_ > 0;
  running_ = static_cast<double>(scheduler_.num_running());
  if (decodes_) {
    end_s_ = now + decode_.seconds(scheduler_.num_decoding(), mean_context(), run_);
    return;
  }
  const batching::CountedStep& step = scheduler_.next_step();
  end_s_ = now + step_seconds(step);
  running_ = static_cast<double>(scheduler_.num_running() + std::ssize(scheduler_.ended()));
  preemptions += step.preempted;
  for (const batching::CountedStep::Chunk& chunk : step.chunks)
    if (chunk.samples && !chunk.again) coming_firsts_.push_back(chunk.request);
}

void Lane::end() {
  first_tokens_.clear();
  std::swap(first_tokens_, coming_firsts_);
  if (decodes_) scheduler_.run_decodes(run_);
  ended_.assign(scheduler_.ended().begin(), scheduler_.ended().end());
  steps += decodes_ ? run_ : 1;
  running_time += running_ * (end_s_ - start_s_);
  decodes_ = false;
  end_s_ = kNever;
}

}  // namespace tessera::plan::serving
