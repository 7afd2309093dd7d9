#include "serve/completion.h"

namespace tessera::serve {

const char* to_string(FinishReason reason) {
  switch (reason) {
    case FinishReason::stop:
      return "stop";
    case FinishReason::length:
      return "length";
    case FinishReason::cancelled:
      return "abort";
    case FinishReason::tool_calls:
      return "tool_calls";
  }
  return "?";
}

void CompletionProgress::append(CompletionProgress more) {
  text += more.text;
  tokens.insert(tokens.end(), more.tokens.begin(), more.tokens.end());
  std::move(more.logprobs.begin(), more.logprobs.end(), std::back_inserter(logprobs));
  std::move(more.prompt_logprobs.begin(), more.prompt_logprobs.end(), std::back_inserter(prompt_logprobs));
  finished |= more.finished;
  if (more.reason) reason = more.reason;
}

void Completion::add(CompletionProgress more) {
  {
    std::lock_guard lock(mutex_);
    pending_.cached_tokens += more.cached_tokens;
    if (more.error) pending_.error = std::move(more.error);
    pending_.append(std::move(more));
  }
  if (notify_) notify_();
}

CompletionProgress Completion::take() {
  std::lock_guard lock(mutex_);
  return std::exchange(pending_, {});
}

}  // namespace tessera::serve
