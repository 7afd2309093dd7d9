// What becomes of a step's logits: tokens of answers, their ends, and what is measured of both.
#include "kernels/threads.h"
#include "serve/engine.h"

namespace tessera::serve {

using batching::StepEntry;

namespace {

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

std::span<const float> row_of(const at::Tensor& logits, int64_t row) {
  return {logits.const_data_ptr<float>() + row * logits.size(1), static_cast<size_t>(logits.size(1))};
}

// Rows of a step whose logits tell of the prompt's own tokens.
int64_t prompt_rows_of(const StepEntry& entry, const Answer& answer) {
  if (!answer.wants_prompt_logprobs()) return 0;
  return entry.samples ? entry.count - entry.drafts - 1 : entry.count;
}

}  // namespace

// What needs no other answer, on all threads. Choices behind a guess come later: they need the one in front.
std::vector<Answer::Row> Engine::look_at_rows(const Share& share, const at::Tensor& logits) {
  struct Look {
    Answer* answer;
    int64_t row, position;  // position < 0: of the last known token
  };
  std::vector<Look> looks;
  int64_t row = 0;
  for (size_t i = 0; i < share.answers.size(); ++i) {
    const StepEntry& entry = share.step.entries[i];
    Answer* answer = share.answers[i].get();
    const int64_t prompt_rows = prompt_rows_of(entry, *answer);
    for (int64_t k = 0; k < prompt_rows; ++k) looks.push_back({answer, row++, entry.first + k});
    if (entry.samples) looks.push_back({answer, row, -1});
    row += entry.samples ? entry.drafts + 1 : 0;
  }
  std::vector<Answer::Row> out(static_cast<size_t>(row));
  kernels::parallel(std::ssize(looks), [&](int64_t i) {
    const auto [answer, at, position] = looks[static_cast<size_t>(i)];
    const auto values = row_of(logits, at);
    out[static_cast<size_t>(at)] =
        position < 0 ? answer->choose(values) : answer->look_at_prompt(position, values);
  });
  return out;
}

void Engine::deliver(const Work& work, const std::vector<at::Tensor>& logits) {
  for (size_t replica = 0; replica < logits.size(); ++replica) {
    const Share& share = work.shares[replica];
    const at::Tensor rows = logits[replica].cpu();
    std::vector<Answer::Row> looked_at = look_at_rows(share, rows);
    int64_t row = 0, token = 0;
    for (size_t i = 0; i < share.answers.size(); token += share.step.entries[i++].count) {
      const int64_t right = deliver_entry(share.step.entries[i], share.answers[i], row, rows, looked_at);
      if (model_.has_mtp()) keep_hidden(share.step.entries[i], *share.answers[i], token, right);
    }
  }
}

// How many guesses were right.
int64_t Engine::deliver_entry(const StepEntry& entry, const AnswerPtr& answer, int64_t& row,
                              const at::Tensor& logits, std::vector<Answer::Row>& looked_at) {
  const int64_t prompt_rows = prompt_rows_of(entry, *answer);
  for (int64_t i = 0; i < prompt_rows; ++i)
    answer->observe_prompt(entry.first + i, std::move(looked_at[static_cast<size_t>(row++)]));
  if (!entry.samples) return 0;
  const int64_t right = choose(entry, answer, row, logits, looked_at[static_cast<size_t>(row)]);
  row += entry.drafts + 1;
  return right;
}

// One token, and one more for each guess that equals the choice before it; says how many.
int64_t Engine::choose(const StepEntry& entry, const AnswerPtr& answer, int64_t row, const at::Tensor& logits,
                       Answer::Row& first) {
  int64_t before = answer->num_generated(), right = 0;
  answer->losses = 0;
  std::optional<FinishReason> reason;
  while (true) {
    int64_t known = answer->num_generated();
    reason = answer->extend(right == 0 ? std::move(first) : answer->choose(row_of(logits, row + right)));
    if (answer->num_generated() > known) count_token(*answer);
    bool as_guessed =
        right < entry.drafts && answer->guesses[static_cast<size_t>(right)] == answer->tokens().back();
    if (reason || !as_guessed) break;
    ++right;
  }
  answer->guess_length.checked(entry.drafts, right);
  metrics_.count_guesses(entry.drafts, right);
  settle(entry.id, answer, answer->num_generated() - before, reason);
  return right;
}

// Tells the scheduler first, so that who sees the end of an answer sees its blocks free.
void Engine::settle(int64_t id, const AnswerPtr& answer, int64_t new_tokens,
                    std::optional<FinishReason> reason) {
  {
    std::lock_guard lock(mutex_);
    if (!answers_.contains(id)) return;  // cancelled during the step
    if (answer->num_generated() == new_tokens && new_tokens > 0)
      waits_[static_cast<size_t>(scheduler_.replica_of(id))].first_token_came(answer->predicted_s,
                                                                              seconds_since(answer->arrival));
    if (reason)
      forget(id);
    else
      scheduler_.append_tokens(id, std::span(answer->tokens()).last(static_cast<size_t>(new_tokens)));
  }
  if (reason) report(id, *answer, to_string(*reason));
  answer->deliver(reason);
}

void Engine::count_token(Answer& answer) {
  auto now = Clock::now();
  metrics_.count_generated_token();
  if (answer.last_token) {
    metrics_.next_token(seconds_between(*answer.last_token, now));
  } else {
    metrics_.first_token(seconds_between(answer.arrival, *answer.first_step),
                         seconds_between(answer.arrival, now));
    answer.first_token = now;
  }
  answer.last_token = now;
}

void Engine::report(int64_t id, const Answer& answer, const std::string& reason) {
  auto now = Clock::now();
  auto started = answer.first_step.value_or(now), first = answer.first_token.value_or(now);
  RequestSummary summary{.id = id,
                         .prompt_tokens = std::ssize(answer.request().prompt),
                         .generated_tokens = answer.num_generated(),
                         .max_tokens = answer.request().max_tokens,
                         .reason = reason,
                         .request_id = answer.request().request_id,
                         .tenant = answer.request().tenant,
                         .queue_s = seconds_between(answer.arrival, started),
                         .prefill_s = answer.first_step ? seconds_between(started, first) : 0,
                         .decode_s = answer.first_token ? seconds_between(first, now) : 0,
                         .total_s = seconds_between(answer.arrival, now)};
  metrics_.finished(summary);
  trace_end(answer, summary);
  if (options_.on_finished) options_.on_finished(summary);
}

void Engine::trace_step(const Work& work, Clock::time_point start, Clock::time_point computed) {
  int64_t tokens = 0, answers = 0;
  for (const Share& share : work.shares) {
    tokens += share.step.tokens();
    answers += std::ssize(share.answers);
    for (size_t i = 0; i < share.answers.size(); ++i) {
      const StepEntry& entry = share.step.entries[i];
      bool prompt = entry.first < std::ssize(share.answers[i]->request().prompt);
      if (prompt) trace_.add({"prefill", entry.id, start, computed, entry.count});
    }
  }
  trace_.add({"step", 0, start, computed, tokens});
  trace_.add({"sample and detokenise", 0, computed, Clock::now(), answers});
}

void Engine::trace_end(const Answer& answer, const RequestSummary& summary) {
  auto now = Clock::now();
  trace_.add({"llm_request", summary.id, answer.arrival, now, answer.num_generated(), summary});
  trace_.add({"queue", summary.id, answer.arrival, answer.first_step.value_or(now)});
  if (answer.first_token) trace_.add({"decode", summary.id, *answer.first_token, now, answer.num_generated()});
}

}  // namespace tessera::serve
