// Answers with calls of functions as a grammar: text as the model likes until the mark of a call, from there on
// only a call of one of the functions, in the model's own form and with arguments of the function's schema.
// Threads: any.
#pragma once

#include "chat/tool_format.h"
#include "grammar/grammar.h"

namespace tessera::grammar {

struct ToolFunction {
  std::string name;
  chat::Value parameters;  // JSON schema of an object
};

struct ToolChoice {
  bool required = false;  // a call from the first token on; else text or calls
  bool several = true;    // more calls than one, if the form has them
  // With `required` off: instead of text, JSON of this schema.
  const chat::Value* content_schema = nullptr;
};

// Errors: invalid_argument with the function's place in the list, the place in its schema, and the keyword.
Result<std::shared_ptr<const Grammar>> answers_with_calls(const chat::ToolFormat& format,
                                                          const std::vector<ToolFunction>& functions,
                                                          const ToolChoice& choice);

}  // namespace tessera::grammar
