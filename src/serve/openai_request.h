// The bodies of POST /v1/completions and /v1/chat/completions, checked and turned into requests of the engine.
// A key that is not known, or known but not supported with the value it has, is an error and never ignored.
// Threads: any.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "chat/chat_template.h"
#include "chat/tool_parser.h"
#include "http/quota.h"
#include "serve/answer.h"
#include "serve/grammar_constraint.h"

namespace tessera::serve {

// An error in OpenAI's form.
struct ApiError {
  int status = 400;
  std::string message;
  std::string type = "invalid_request_error";
  std::optional<std::string> param = {}, code = {};
  std::optional<double> retry_after_s = {};  // when that is known

  std::string body(
      const std::string& request_id = {}) const;  // with the id, when there is one, beside the error
};
// HTTP status by error code: 400, 404, 429, 503, else 500.
ApiError to_api_error(const Error& error);

// How calls of functions are read from the answers of a call.
struct CalledTools {
  chat::ToolFormat format;
  chat::ToolParser::Begin begin = chat::ToolParser::with_call_or_text;
  bool named = false;  // the client named the function
};

struct CompletionCall {
  std::string model;                        // as the client named it, which may be an adapter
  std::vector<CompletionRequest> requests;  // candidates() for each prompt, prompts in order
  int64_t num_prompts = 1, n = 1;
  std::optional<int64_t> best_of;  // so many are made, the n likeliest answered
  bool stream = false, include_usage = false, chat = false;
  bool with_logprobs = false, with_prompt_logprobs = false;  // asked for by the client
  std::optional<CalledTools> tools = {};
  std::shared_ptr<TokenClaim> claim = {};  // on the key's quota; settled by who runs the call

  int64_t candidates() const { return best_of.value_or(n); }
};

struct ServedName {
  std::string name;                                   // what clients call the model
  std::vector<std::string> adapters = {};             // other names, each with its adapter
  int64_t max_length = 0;                             // tokens of one prompt and its answer
  std::vector<int64_t> end_tokens = {};               // that end every answer
  std::shared_ptr<const Vocabulary> vocabulary = {};  // for answers of a given form
  std::optional<chat::ModelChat> chat = {};
  // Why, when it has none.
  std::string no_chat =
      "this model has no chat template; start the server with --chat-template FILE, or use completions";
  std::optional<chat::ToolFormat> tool_format = {};
  std::string no_tools = {};                               // why, when it has none
  std::shared_ptr<const Vocabulary> tool_vocabulary = {};  // with the marks of calls

  // An adapter's, or the model's for -1.
  const std::string& name_of(int64_t adapter) const {
    return adapter < 0 ? name : adapters[static_cast<size_t>(adapter)];
  }
  // Takes a model's chat template, and what it says about calls of functions.
  void set_chat(chat::ModelChat model_chat, const data::TokenizerPtr& tokenizer);
};

std::variant<CompletionCall, ApiError> parse_completion_call(std::string_view body,
                                                             const data::Tokenizer& tokenizer,
                                                             const ServedName& model);
std::variant<CompletionCall, ApiError> parse_chat_call(std::string_view body, const data::Tokenizer& tokenizer,
                                                       const ServedName& model);

// The prompt of a body with `messages`. REQUIRES: model.chat. Errors: invalid_argument.
Result<std::string> render_conversation(const chat::Value& body, const ServedName& model);

}  // namespace tessera::serve
