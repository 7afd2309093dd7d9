#include "serve/logit_rules.h"

#include <algorithm>
#include <limits>

namespace tessera::serve {

namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

}  // namespace

bool LogitRuleOptions::change_nothing() const {
  return bias.empty() && presence_penalty == 0 && frequency_penalty == 0 && repetition_penalty == 1 &&
         min_tokens == 0 && !constraint;
}

LogitRules::LogitRules(LogitRuleOptions options, std::vector<int64_t> end_tokens,
                       std::span<const int64_t> prompt)
    : options_(std::move(options)), end_tokens_(std::move(end_tokens)), idle_(options_.change_nothing()) {
  if (options_.repetition_penalty != 1)
    for (int64_t token : prompt) counts_.emplace(token, 0);
}

std::span<const float> LogitRules::apply(std::span<const float> logits) {
  if (idle_) return logits;
  row_.assign(logits.begin(), logits.end());
  for (auto [token, bias] : options_.bias) row_[static_cast<size_t>(token)] += bias;
  for (auto [token, count] : counts_) penalize(token, count);
  return mask() ? std::span<const float>(row_) : std::span<const float>();
}

void LogitRules::penalize(int64_t token, int64_t count) {
  float& logit = row_[static_cast<size_t>(token)];
  auto repetition = static_cast<float>(options_.repetition_penalty);
  if (repetition != 1) logit = logit > 0 ? logit / repetition : logit * repetition;
  if (count == 0) return;
  logit -=
      static_cast<float>(options_.frequency_penalty * static_cast<double>(count) + options_.presence_penalty);
}

// False when nothing is left.
bool LogitRules::mask() {
  if (num_accepted_ < options_.min_tokens)
    for (int64_t token : end_tokens_) row_[static_cast<size_t>(token)] = kNever;
  if (options_.constraint) {
    prepare(std::ssize(row_));
    for (size_t token = 0; token < row_.size(); ++token)
      if (!allowed_->allows(static_cast<int64_t>(token))) row_[token] = kNever;
  }
  return *std::max_element(row_.begin(), row_.end()) > kNever;
}

void LogitRules::prepare(int64_t vocab) {
  if (!options_.constraint || allowed_) return;
  options_.constraint->restrict(allowed_.emplace(vocab));
}

void LogitRules::accept(int64_t token) {
  ++num_accepted_;
  allowed_.reset();
  if (idle_) return;
  ++counts_[token];
  if (options_.constraint) options_.constraint->accept(token);
}

}  // namespace tessera::serve
