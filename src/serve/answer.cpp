#include "serve/answer.h"

#include <algorithm>

namespace tessera::serve {

namespace {

int64_t characters(std::string_view utf8) {
  return std::count_if(utf8.begin(), utf8.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

std::vector<int64_t> joined(std::vector<int64_t> a, const std::vector<int64_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

}  // namespace

Answer::Answer(CompletionRequest request, std::shared_ptr<Completion> completion, data::TokenizerPtr tokenizer,
               std::vector<int64_t> end_tokens)
    : request_(std::move(request)),
      completion_(std::move(completion)),
      tokenizer_(std::move(tokenizer)),
      end_tokens_(joined(std::move(end_tokens), request_.end_tokens)),
      tokens_(request_.prompt),
      decoder_(tokenizer_, tokens_.back()),
      stops_(request_.stop, request_.stop_until),
      rules_(request_.rules, request_.ignore_eos ? std::vector<int64_t>() : end_tokens_, request_.prompt) {
  if (wants_prompt_logprobs()) prompt_reported_ = 1;
  if (request_.prompt_logprobs) progress_.prompt_logprobs.emplace_back();
  if (!request_.echo) return;
  progress_.text = *request_.echo;
  if (!echoes_logprobs()) {
    num_characters_ = characters(*request_.echo);
    return;
  }
  progress_.logprobs.push_back({.token = text_of(tokens_[0], -1)});
  num_characters_ = characters(progress_.logprobs[0].token);
}

std::string Answer::text_of(int64_t token, int64_t previous) const {
  return tokenizer_->decode_one(token, previous, /*skip_special_tokens=*/false);
}

TokenLogprobs Answer::describe(int64_t token, int64_t previous, std::span<const float> logits) const {
  TokenLogprobs out{.token = text_of(token, previous), .logprob = logprob_of(logits, token)};
  for (const Candidate& candidate : top_logprobs(logits, *request_.logprobs))
    out.top.emplace_back(text_of(candidate.token, previous), candidate.logprob);
  return out;
}

PromptPlace Answer::rank(int64_t token, int64_t previous, std::span<const float> logits) const {
  float own = logits[static_cast<size_t>(token)];
  // Ties count for the lower token, as where the likeliest are listed.
  auto before = [&](size_t i) {
    return logits[i] > own || (logits[i] == own && static_cast<int64_t>(i) < token);
  };
  int64_t rank = 1;
  for (size_t i = 0; i < logits.size(); ++i) rank += before(i);
  PromptPlace out = {
      {.id = token, .rank = rank, .logprob = logprob_of(logits, token), .token = text_of(token, previous)}};
  int64_t place = 0;
  for (const Candidate& candidate : top_logprobs(logits, *request_.prompt_logprobs))
    if (++place != rank)
      out.push_back({.id = candidate.token,
                     .rank = place,
                     .logprob = candidate.logprob,
                     .token = text_of(candidate.token, previous)});
  return out;
}

// Rows that were reported before come again after a preemption.
bool Answer::reports(int64_t position) const {
  return position + 1 >= prompt_reported_ && position + 1 < std::ssize(request_.prompt);
}

Answer::Row Answer::look_at_prompt(int64_t position, std::span<const float> logits) const {
  if (!reports(position)) return {};
  const int64_t previous = tokens_[static_cast<size_t>(position)],
                token = tokens_[static_cast<size_t>(position + 1)];
  Row row{.token = token};
  if (request_.prompt_logprobs) row.place = rank(token, previous, logits);
  if (echoes_logprobs()) row.logprobs = describe(token, previous, logits);
  return row;
}

void Answer::observe_prompt(int64_t position, Row row) {
  if (!reports(position)) return;
  if (row.place) progress_.prompt_logprobs.push_back(std::move(*row.place));
  if (row.logprobs) {
    row.logprobs->text_offset = num_characters_;
    num_characters_ += characters(row.logprobs->token);
    progress_.logprobs.push_back(std::move(*row.logprobs));
  }
  ++prompt_reported_;
}

Answer::Row Answer::choose(std::span<const float> logits) {
  if (request_.max_tokens == 0) return {};
  const auto allowed = rules_.apply(logits);
  if (allowed.empty()) return {};
  Row row{.token = sample(allowed, request_.sampling, std::ssize(tokens_))};
  if (request_.logprobs) row.logprobs = describe(*row.token, tokens_.back(), logits);
  return row;
}

std::optional<FinishReason> Answer::extend(Row row) {
  if (request_.max_tokens == 0) return FinishReason::length;
  if (!row.token) return FinishReason::stop;
  const int64_t token = *row.token;
  if (row.logprobs) {
    row.logprobs->text_offset = num_characters_;
    progress_.logprobs.push_back(std::move(*row.logprobs));
  }
  rules_.accept(token);
  tokens_.push_back(token);
  ++num_generated_;
  progress_.tokens.push_back(token);
  if (ends(token)) return FinishReason::stop;
  show(shown_text_of(token));
  if (stops_.found()) return FinishReason::stop;
  if (num_generated() == request_.max_tokens) return FinishReason::length;
  return std::nullopt;
}

std::string Answer::shown_text_of(int64_t token) {
  if (!request_.show_special || !tokenizer_->is_special(token)) return decoder_.push(token);
  return decoder_.flush() + std::string(tokenizer_->bytes_of(token));
}

void Answer::show(const std::string& text) {
  num_characters_ += characters(text);
  progress_.text += num_generated() < request_.rules.min_tokens ? stops_.skip(text) : stops_.push(text);
}

bool Answer::ends(int64_t token) const {
  return !request_.ignore_eos && std::find(end_tokens_.begin(), end_tokens_.end(), token) != end_tokens_.end();
}

void Answer::deliver(std::optional<FinishReason> reason) {
  if (reason) {
    show(decoder_.flush());
    progress_.text += stops_.flush();
    progress_.finished = true;
    progress_.reason = reason;
  }
  if (!progress_.empty()) completion_->add(std::exchange(progress_, {}));
}

}  // namespace tessera::serve
