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

void Completion::add(CompletionProgress more) {
  {
    std::lock_guard lock(mutex_);
    pending_.text += more.text;
    pending_.tokens.insert(pending_.tokens.end(), more.tokens.begin(), more.tokens.end());
    std::move(more.logprobs.begin(), more.logprobs.end(), std::back_inserter(pending_.logprobs));
    pending_.cached_tokens += more.cached_tokens;
    pending_.finished |= more.finished;
    if (more.reason) pending_.reason = more.reason;
    if (more.error) pending_.error = std::move(more.error);
  }
  if (notify_) notify_();
}

CompletionProgress Completion::take() {
  std::lock_guard lock(mutex_);
  return std::exchange(pending_, {});
}

}  // namespace tessera::serve
