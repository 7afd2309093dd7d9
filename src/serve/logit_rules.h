// What a request asks to change in the logits before a token is drawn: its bias, penalties for tokens that came
// before, end tokens held back until min_tokens, and what a constraint allows. In this order:
//   logit += bias
//   logit = logit > 0 ? logit / repetition : logit * repetition    tokens of the prompt or the answer (CTRL)
//   logit -= frequency * count + presence                          tokens of the answer (OpenAI)
//   logit = -infinity                                              tokens that are held back or not allowed
// The state is that of one answer: equal tokens give equal logits, whatever the steps they came in.
// Threads: one at a time.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "serve/sampler.h"
#include "serve/token_constraint.h"

namespace tessera::serve {

struct LogitRuleOptions {
  std::vector<std::pair<int64_t, float>> bias;  // token, what is added to its logit
  double presence_penalty = 0, frequency_penalty = 0;
  double repetition_penalty = 1;                // above zero
  int64_t min_tokens = 0;                       // no end token before so many
  std::shared_ptr<TokenConstraint> constraint;  // not shared between requests; may be null

  bool change_nothing() const;
};

class LogitRules {
 public:
  // `end_tokens`: what min_tokens holds back.
  LogitRules(LogitRuleOptions options, std::vector<int64_t> end_tokens, std::span<const int64_t> prompt);

  // The row to draw from: `logits` itself when nothing changes, else a copy that lives until the next call.
  // Empty when no token is allowed.
  std::span<const float> apply(std::span<const float> logits);
  void accept(int64_t token);
  // Finds what the constraint allows for the next apply(), which else does it itself. It depends on the tokens
  // so far only, so that it can be done while the logits are computed.
  void prepare(int64_t vocab);

 private:
  void penalize(int64_t token, int64_t count);
  bool mask();

  LogitRuleOptions options_;
  std::vector<int64_t> end_tokens_;
  // How often a token stands in the answer; tokens that stand only in the prompt have zero.
  std::unordered_map<int64_t, int64_t> counts_;
  int64_t num_accepted_ = 0;
  bool idle_;
  std::vector<float> row_;
  std::optional<TokenMask> allowed_;  // for the place of the next token
};

}  // namespace tessera::serve
