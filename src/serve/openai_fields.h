// The fields of a request's JSON body, read with their types and limits. A key that is not known is an error
// and never ignored; null counts as absent. Of several errors an unknown key is told first, for it is often the
// cause of the others, else the first that was found. Threads: one reader at a time.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "serve/openai_request.h"

namespace tessera::serve {

class Fields {
 public:
  // `body` must outlive this, and be an object.
  explicit Fields(const nlohmann::json& body) : body_(body) {}
  const std::optional<ApiError>& error() const { return error_; }

  const nlohmann::json* find(const std::string& name);
  void refuse(const std::string& name, std::string message);
  void refuse(ApiError error);

  bool boolean(const std::string& name, bool fallback);
  std::optional<int64_t> integer(const std::string& name, int64_t least, int64_t most);
  double number(const std::string& name, double fallback, double least, double most);
  std::string text(const std::string& name, std::string fallback);
  // Parts of the protocol that are not served: only the value that changes nothing is taken.
  void only(const std::string& name, const nlohmann::json& neutral);

  // REQUIRES: all known keys were asked for.
  void refuse_unknown();

 private:
  const nlohmann::json& body_;
  std::vector<std::string> known_;
  std::optional<ApiError> error_;
};

// A value for a message: its JSON, cut when long.
std::string shown(const nlohmann::json& value);
bool is_list_of_texts(const nlohmann::json& value);

// What completions and chat completions have in common, but for the prompt, the logprobs and the length.
CompletionRequest read_sampling(Fields& fields);
// vLLM's prompt_logprobs: so many of the likeliest tokens at each place of the prompt, beside its own.
void read_prompt_logprobs(Fields& fields, CompletionRequest& request, CompletionCall& call);
// n, stream, stream_options.
void read_delivery(Fields& fields, CompletionCall& call);
// Whether this server has it; the index of the adapter that it names, or -1.
int64_t check_model(Fields& fields, const ServedName& model);

// One choice after the other of one prompt; each draws its own numbers.
void add_choices(CompletionRequest request, CompletionCall& call);

// Runs `read` on the parsed body. Errors: no JSON, no object, nested too deeply, and those of `read`.
using CallResult = std::variant<CompletionCall, ApiError>;
CallResult read_body(std::string_view body, const std::function<CallResult(const nlohmann::json&)>& read);

}  // namespace tessera::serve
