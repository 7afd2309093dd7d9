// Answers in OpenAI's JSON: completions and chat completions, whole and in pieces.
// Threads: any.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "serve/completion.h"

namespace tessera::serve {

// Tokens may be parts of characters; JSON cannot carry those, so they become U+FFFD.
std::string dump(const nlohmann::json& value);

// What a chat answer says: text, and calls of functions. In a stream, what is new of it: then a call is named
// in its first piece only.
struct ToolCall {
  int64_t index = 0;
  std::string id, name, arguments;  // arguments: JSON text
  bool is_new = true;
};
struct ChatText {
  std::string content;
  std::vector<ToolCall> calls;
};

// [null, {"17": {"logprob", "rank", "decoded_token", "bytes"}, ...}, ...]: vLLM's form, with bytes.
nlohmann::json prompt_logprobs_json(const std::vector<PromptPlace>& places);
nlohmann::json completion_choice(int64_t index, const CompletionProgress& progress, bool with_logprobs);
nlohmann::json chat_choice(int64_t index, const ChatText& text, const CompletionProgress& progress,
                           bool with_logprobs);
// A piece of a streamed choice. The first one of a choice carries the role.
nlohmann::json chat_delta(int64_t index, const ChatText& text, const CompletionProgress& progress,
                          bool with_logprobs, bool is_first);

}  // namespace tessera::serve
