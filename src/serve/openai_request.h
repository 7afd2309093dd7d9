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

struct CompletionCall {
  std::vector<CompletionRequest> requests;  // candidates() for each prompt, prompts in order
  int64_t num_prompts = 1, n = 1;
  std::optional<int64_t> best_of;  // so many are made, the n likeliest answered
  bool stream = false, include_usage = false, chat = false;
  bool with_logprobs = false;              // asked for by the client
  std::shared_ptr<TokenClaim> claim = {};  // on the key's quota; settled by who runs the call

  int64_t candidates() const { return best_of.value_or(n); }
};

struct ServedName {
  std::string name;                                   // what clients call the model
  int64_t max_length = 0;                             // tokens of one prompt and its answer
  std::vector<int64_t> end_tokens = {};               // that end every answer
  std::shared_ptr<const Vocabulary> vocabulary = {};  // for answers of a given form
  std::optional<chat::ModelChat> chat = {};
  std::string no_chat =
      "this model has no chat template; start the server with --chat-template FILE, or use completions";  // why,
                                                                                                          // when
                                                                                                          // it
                                                                                                          // has
                                                                                                          // none
};

std::variant<CompletionCall, ApiError> parse_completion_call(std::string_view body,
                                                             const data::Tokenizer& tokenizer,
                                                             const ServedName& model);
std::variant<CompletionCall, ApiError> parse_chat_call(std::string_view body, const data::Tokenizer& tokenizer,
                                                       const ServedName& model);

}  // namespace tessera::serve
