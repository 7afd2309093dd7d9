// The life of one request inside the engine: its tokens, its text so far, and when it is done.
// Threads: the engine's only, except where said.
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/clock.h"
#include "data/tokenizer.h"
#include "serve/brought_kv.h"
#include "serve/completion.h"
#include "serve/guesses.h"
#include "serve/logit_rules.h"
#include "serve/sampler.h"
#include "serve/stop_matcher.h"

namespace tessera::serve {

struct CompletionRequest {
  std::vector<int64_t> prompt;  // at least one token
  SamplingOptions sampling;
  LogitRuleOptions rules;  // bias, penalties, min_tokens, constraint; tokens inside the vocabulary
  int64_t max_tokens = 16;
  std::vector<std::string> stop;           // none of them empty; looked for in text after min_tokens
  std::string stop_until;                  // behind the first of it they are not looked for; empty: everywhere
  std::vector<int64_t> end_tokens;         // besides the model's own
  bool show_special = false;               // special tokens are text, but for those that end the answer
  std::optional<int64_t> logprobs;         // report each token's and so many of the likeliest
  std::optional<int64_t> prompt_logprobs;  // so many of the likeliest at each place of the prompt
  std::optional<std::string> echo;         // text put in front of the answer; with logprobs also the prompt's
  bool ignore_eos = false;
  int64_t adapter = -1;        // of the model's adapters; -1: none
  std::string cache_salt;      // prompts share cache blocks between equal salts only
  std::string tenant;          // who shares the server fairly with whom
  std::string request_id;      // the client's name of the call, for logs and traces
  int64_t priority = 0;        // lower values first
  double queue_timeout_s = 0;  // waits no longer for its first step; 0: the engine's
  double timeout_s = 0;        // has ended by then; 0: the engine's

  int64_t max_length() const { return static_cast<int64_t>(prompt.size()) + max_tokens; }
};

class Answer {
 public:
  Answer(CompletionRequest request, std::shared_ptr<Completion> completion, data::TokenizerPtr tokenizer,
         std::vector<int64_t> end_tokens);

  const CompletionRequest& request() const { return request_; }
  Completion& completion() const { return *completion_; }
  const std::vector<int64_t>& tokens() const { return tokens_; }  // prompt and answer
  int64_t num_generated() const { return num_generated_; }        // any thread
  bool wants_prompt_logprobs() const { return echoes_logprobs() || request_.prompt_logprobs; }

  // What the logits of one row say. Most of the work of a token is here, so that it is done for many rows at
  // once: rows of the prompt in any number, choose() for one row of an answer at a time.
  struct Row {
    std::optional<int64_t> token;  // none is allowed: the answer is done
    std::optional<TokenLogprobs> logprobs = {};
    std::optional<PromptPlace> place = {};  // of a prompt's token
  };
  // The row at `position`, a position of the prompt before its last.
  Row look_at_prompt(int64_t position, std::span<const float> logits) const;
  // The row of the last known token.
  Row choose(std::span<const float> logits);

  // Reports the prompt's token behind `position`.
  void observe_prompt(int64_t position, Row row);
  // What a grammar allows next, found ahead of extend(): on any thread that has ended by then.
  bool has_constraint() const { return request_.rules.constraint != nullptr; }
  void prepare(int64_t vocab) { rules_.prepare(vocab); }
  // Takes the chosen token. The reason when the answer is done by it.
  std::optional<FinishReason> extend(Row row);
  std::optional<FinishReason> extend(std::span<const float> logits) { return extend(choose(logits)); }

  // To be told with the first tokens: so much of the prompt came from the cache.
  void set_cached_tokens(int64_t tokens) { progress_.cached_tokens = tokens; }
  // Sends what extend() and observe_prompt() produced.
  void deliver(std::optional<FinishReason> reason);

  // Guessed next tokens that the step under way checks, and how many to guess.
  std::vector<int64_t> guesses;
  GuessLength guess_length{0};
  at::Tensor hidden;         // of the last token that ran, where a multi-token-prediction layer wants it
  int64_t hidden_until = 0;  // the position behind that token

  int64_t losses = 0;  // steps that failed since its last token

  double predicted_s = 0;  // from arrival to its first token

  std::optional<BroughtKv> brought;  // by a prefill worker, until its first step

  // For the metrics.
  Clock::time_point arrival = Clock::now();
  std::optional<Clock::time_point> first_step, first_token, last_token;

 private:
  bool echoes_logprobs() const { return request_.echo && request_.logprobs; }
  PromptPlace rank(int64_t token, int64_t previous, std::span<const float> logits) const;
  TokenLogprobs describe(int64_t token, int64_t previous, std::span<const float> logits) const;
  std::string text_of(int64_t token, int64_t previous) const;
  std::string shown_text_of(int64_t token);
  bool reports(int64_t position) const;
  void show(const std::string& text);
  bool ends(int64_t token) const;

  CompletionRequest request_;
  std::shared_ptr<Completion> completion_;
  data::TokenizerPtr tokenizer_;
  std::vector<int64_t> end_tokens_, tokens_;
  data::StreamDecoder decoder_;
  StopMatcher stops_;
  LogitRules rules_;
  CompletionProgress progress_;
  std::atomic<int64_t> num_generated_ = 0;
  int64_t num_characters_ = 0;   // decoded so far, with the echo
  int64_t prompt_reported_ = 0;  // tokens of the prompt whose log probabilities went out
};

}  // namespace tessera::serve
