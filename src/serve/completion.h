// One answer under way: what the engine has produced and its reader has not yet taken. The engine never waits
// for a slow reader: what piles up is joined, and is bounded by the length of the answer.
// Threads: any.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/result.h"

namespace tessera::serve {

enum class FinishReason { stop, length, cancelled, tool_calls };
const char* to_string(FinishReason reason);  // "stop", "length", "abort", "tool_calls"

// Log probabilities of one token of the prompt or the answer.
struct TokenLogprobs {
  std::string token;              // its bytes as text
  std::optional<double> logprob;  // none for the first token of a prompt
  std::vector<std::pair<std::string, double>> top;
  int64_t text_offset = 0;  // characters in front of it
};

// A token that may stand at a place of the prompt, as vLLM reports it.
struct RankedToken {
  int64_t id = 0, rank = 0;  // 1: the likeliest
  double logprob = 0;
  std::string token;  // its bytes as text
};
// Of one place: its own token, and the likeliest in descending order; empty for the first, which nothing
// precedes.
using PromptPlace = std::vector<RankedToken>;

struct CompletionProgress {
  std::string text;  // whole characters
  std::vector<int64_t> tokens;
  std::vector<TokenLogprobs> logprobs;
  std::vector<PromptPlace> prompt_logprobs;  // a place for each token of the prompt, where they were asked for
  int64_t cached_tokens = 0;                 // of the prompt: their keys and values were in the cache
  bool finished = false;
  std::optional<FinishReason> reason;  // when finished without an error
  std::optional<Error> error;          // when the server failed

  bool empty() const {
    return text.empty() && tokens.empty() && logprobs.empty() && prompt_logprobs.empty() && !finished;
  }
  // Adds what came next, but for the tokens from the cache and an error.
  void append(CompletionProgress more);
};

class Completion {
 public:
  // `notify` is called after every add(), by the engine's thread.
  Completion(int64_t id, std::function<void()> notify) : id_(id), notify_(std::move(notify)) {}
  int64_t id() const { return id_; }

  void add(CompletionProgress more);
  // All that came since the last call.
  CompletionProgress take();

 private:
  int64_t id_;
  std::function<void()> notify_;
  std::mutex mutex_;
  CompletionProgress pending_;
};

}  // namespace tessera::serve
