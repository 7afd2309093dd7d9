#include "serve/openai_request.h"

#include <nlohmann/json.hpp>

#include "http/error_body.h"
#include "serve/openai_format.h"

namespace tessera::serve {

using nlohmann::json;

std::string ApiError::body(const std::string& request_id) const {
  return openai_error_body({status, message, type, param, code}, request_id);
}

ApiError to_api_error(const Error& error) {
  switch (error.code) {
    case ErrorCode::invalid_argument:
      return {.status = 400, .message = error.message};
    case ErrorCode::not_found:
      return {.status = 404, .message = error.message};
    case ErrorCode::resource_exhausted:
      return {.status = 429, .message = error.message, .type = "rate_limit_error", .code = "queue_full"};
    case ErrorCode::deadline_exceeded:
      return {.status = 504, .message = error.message, .type = "timeout_error", .code = "deadline_exceeded"};
    case ErrorCode::unavailable:
      return {.status = 503, .message = error.message, .type = "service_unavailable_error"};
    default:
      return {.status = 500, .message = error.message, .type = "internal_server_error"};
  }
}

namespace {

constexpr int64_t kMaxLogprobs = 20, kMaxCandidates = 128;

struct Prompt {
  std::vector<int64_t> tokens;
  std::string text;
};

Prompt from_text(const std::string& text, const data::Tokenizer& tokenizer) {
  return {tokenizer.encode(text, {.add_special_tokens = true}), text};
}
Prompt from_tokens(const json& ids, const data::Tokenizer& tokenizer) {
  auto tokens = ids.get<std::vector<int64_t>>();
  return {tokens, tokenizer.decode(tokens)};
}

bool is_array_of(const json& value, bool (*matches)(const json&)) {
  return value.is_array() && !value.empty() && std::all_of(value.begin(), value.end(), matches);
}
bool is_id(const json& value) {
  return value.is_number_unsigned() && value.get<uint64_t>() <= static_cast<uint64_t>(INT32_MAX);
}
bool is_ids(const json& value) {
  return is_array_of(value, is_id);
}

// A string, a list of strings, a list of token ids, or a list of such lists.
std::vector<Prompt> read_prompts(Fields& fields, const data::Tokenizer& tokenizer) {
  const json* value = fields.find("prompt");
  std::vector<Prompt> prompts;
  if (!value) {
    fields.refuse("prompt", "'prompt' is missing");
  } else if (value->is_string()) {
    prompts.push_back(from_text(value->get<std::string>(), tokenizer));
  } else if (is_list_of_texts(*value)) {
    for (const json& text : *value) prompts.push_back(from_text(text.get<std::string>(), tokenizer));
  } else if (is_ids(*value)) {
    prompts.push_back(from_tokens(*value, tokenizer));
  } else if (is_array_of(*value, is_ids)) {
    for (const json& ids : *value) prompts.push_back(from_tokens(ids, tokenizer));
  } else {
    fields.refuse("prompt",
                  "'prompt' must be a string, a list of strings, a list of token ids, or a list of "
                  "lists of token ids, and not empty");
  }
  return prompts;
}

// A default that reaches beyond the context is cut; what was asked for is not, and the engine refuses it.
int64_t max_tokens_for(const Prompt& prompt, std::optional<int64_t> asked, const ServedName& model) {
  if (asked) return *asked;
  return std::clamp<int64_t>(model.max_length - std::ssize(prompt.tokens), 1, 16);
}

// Candidates are compared by their mean log probability, so those are wanted.
void read_best_of(Fields& fields, CompletionRequest& request, CompletionCall& call) {
  call.best_of = fields.integer("best_of", call.n, kMaxCandidates);
  if (call.candidates() == call.n) return;
  if (call.stream) fields.refuse("best_of", "'best_of' above 'n' cannot be streamed");
  if (!request.logprobs) request.logprobs = 0;
}

CallResult read_call(const json& body, std::string_view text, const data::Tokenizer& tokenizer,
                     const ServedName& model) {
  Fields fields(body);
  CompletionCall call;
  const int64_t adapter = check_model(fields, model);
  call.model = model.name_of(adapter);
  CompletionRequest request = read_sampling(fields);
  request.adapter = adapter;
  auto max_tokens = fields.integer("max_tokens", 0, INT32_MAX);
  bool echo = fields.boolean("echo", false);
  request.logprobs = fields.integer("logprobs", 0, kMaxLogprobs);
  call.with_logprobs = request.logprobs.has_value();
  read_delivery(fields, call);
  read_prompt_logprobs(fields, request, call);
  read_best_of(fields, request, call);
  fields.only("suffix", "");
  OrderedBody ordered(text);
  auto format = read_format(fields, ordered, false);
  std::vector<Prompt> prompts = read_prompts(fields, tokenizer);
  if (max_tokens == 0 && !echo && !request.prompt_logprobs)
    fields.refuse("max_tokens", "'max_tokens' can be 0 only with echo or prompt_logprobs");
  fields.refuse_unknown();
  if (fields.error()) return *fields.error();

  call.num_prompts = std::ssize(prompts);
  for (const Prompt& prompt : prompts) {
    request.max_tokens = max_tokens_for(prompt, max_tokens, model);
    request.prompt = prompt.tokens;
    if (echo) request.echo = prompt.text;
    add_choices(request, call);
  }
  apply_format(std::move(format), model.vocabulary, model, call);
  return call;
}

}  // namespace

std::variant<CompletionCall, ApiError> parse_completion_call(std::string_view body,
                                                             const data::Tokenizer& tokenizer,
                                                             const ServedName& model) {
  return read_body(body, [&](const json& parsed) { return read_call(parsed, body, tokenizer, model); });
}

}  // namespace tessera::serve
