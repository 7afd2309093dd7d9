// `tools`, `tool_choice` and `parallel_tool_calls` of chat completions, and the calls in an answer's text.
// Threads: any; a reader one at a time.
#pragma once

#include "chat/tool_parser.h"
#include "serve/openai_format.h"
#include "serve/openai_json.h"

namespace tessera::serve {

// The grammar of answers that may, or must, call functions; nothing when they cannot, or after an error in
// `fields`. Sets call.tools.
std::shared_ptr<const grammar::Grammar> read_tools(Fields& fields, OrderedBody& body, const ServedName& model,
                                                   CompletionCall& call);

// Reads one choice, piece by piece.
class AnswerReader {
 public:
  explicit AnswerReader(const std::optional<CalledTools>& tools);
  // What is new. Changes the reason of a progress that ends with calls.
  ChatText read(CompletionProgress& progress);

 private:
  std::optional<chat::ToolParser> parser_;
  bool named_ = false;
};

// The pieces joined.
void append(ChatText& all, ChatText more);

}  // namespace tessera::serve
