// How a model writes calls of functions into its answer. Every model has a form of its own; its chat template
// writes earlier calls in that form, so the form is read off from a conversation of known words that the
// template renders. Whoever writes
//   <tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>          Hermes, Qwen
//   [TOOL_CALLS][{"name": "f", "arguments": {"a": 1}, "id": "abcdefghi"}]    Mistral
//   <function=f>{"a": 1}</function>                                         Functionary
//   {"name": "f", "parameters": {"a": 1}}                                   Llama 3
// is understood without a line about it. Forms that write arguments in another way than as one JSON object are
// not. Threads: immutable.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "chat/chat_template.h"

namespace tessera::chat {

struct CallPart {
  enum Slot { name, arguments, id };
  std::string text;  // in front of the slot
  Slot slot;
};

constexpr size_t kCallIdLength = 9;  // letters and digits: what Mistral's templates take

// before_calls, then calls with between_calls in between, then after_calls. A call is its parts and after_call.
struct ToolFormat {
  std::string before_calls;
  std::vector<CallPart> parts;  // has a name and arguments
  std::string after_call, between_calls, after_calls;
  std::string before_content;  // in front of an answer that begins with text
  bool several = true;         // calls in one answer
  // What the template wants of earlier messages with calls.
  bool arguments_as_text = false;  // JSON text, no value
  bool content_as_text = false;    // an absent content is ""; else none

  std::string opening() const { return before_calls + parts.front().text; }
  // The mark in opening() that ordinary text does not have, such as <tool_call>: behind it comes a call. Where
  // there is none this is all of opening(), and only an answer's first words are taken for it.
  std::string trigger() const;
  bool has_mark() const;
  std::string behind_trigger() const;  // the rest of opening()
};

// `end_texts`: the tokens that end answers, as text. Errors: invalid_argument, with what the template does not
// do.
Result<ToolFormat> find_tool_format(const ModelChat& model, std::span<const std::string> end_texts);

}  // namespace tessera::chat
