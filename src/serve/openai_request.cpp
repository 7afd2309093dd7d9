#include "serve/openai_request.h"

#include <nlohmann/json.hpp>
#include <random>

#include "core/nearest.h"

namespace tessera::serve {

using nlohmann::json;

std::string ApiError::body() const {
  auto or_null = [](const std::optional<std::string>& text) { return text ? json(*text) : json(nullptr); };
  json error = {{"message", message}, {"type", type}, {"param", or_null(param)}, {"code", or_null(code)}};
  return json{{"error", error}}.dump(-1, ' ', false, json::error_handler_t::replace);
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

constexpr int64_t kMaxChoices = 128, kMaxStops = 16, kMaxLogprobs = 20;

// Reads typed fields; null counts as absent. The first error stays.
class Fields {
 public:
  explicit Fields(const json& body) : body_(body) {}
  const std::optional<ApiError>& error() const { return error_; }

  const json* find(const std::string& name) {
    known_.push_back(name);
    auto found = body_.find(name);
    return found == body_.end() || found->is_null() ? nullptr : &*found;
  }

  void refuse(const std::string& name, std::string message) {
    if (!error_) error_ = ApiError{.message = std::move(message), .param = name};
  }

  bool boolean(const std::string& name, bool fallback) {
    const json* value = find(name);
    if (!value) return fallback;
    if (value->is_boolean()) return value->get<bool>();
    refuse(name, fmt::format("'{}' must be true or false, not {}", name, value->dump()));
    return fallback;
  }

  std::optional<int64_t> integer(const std::string& name, int64_t least, int64_t most) {
    const json* value = find(name);
    if (!value) return std::nullopt;
    bool fits = value->is_number_integer() &&
                (!value->is_number_unsigned() || value->get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX));
    if (fits && value->get<int64_t>() >= least && value->get<int64_t>() <= most) return value->get<int64_t>();
    refuse(name,
           fmt::format("'{}' must be an integer from {} to {}, not {}", name, least, most, value->dump()));
    return std::nullopt;
  }

  double number(const std::string& name, double fallback, double least, double most) {
    const json* value = find(name);
    if (!value) return fallback;
    if (value->is_number() && value->get<double>() >= least && value->get<double>() <= most)
      return value->get<double>();
    refuse(name, fmt::format("'{}' must be a number from {} to {}, not {}", name, least, most, value->dump()));
    return fallback;
  }

  // Parts of the protocol that are not served: only the value that changes nothing is taken.
  void only(const std::string& name, const json& neutral) {
    const json* value = find(name);
    if (value && *value != neutral && !value->empty())
      refuse(name, fmt::format("'{}' is not supported; leave it out", name));
  }

  void refuse_unknown() {
    for (const auto& [key, value] : body_.items())
      if (std::find(known_.begin(), known_.end(), key) == known_.end())
        refuse(key, fmt::format("unrecognized request argument '{}'{}", key, did_you_mean(key, known_)));
  }

 private:
  const json& body_;
  std::vector<std::string> known_;
  std::optional<ApiError> error_;
};

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
bool is_text(const json& value) {
  return value.is_string();
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
  } else if (is_array_of(*value, is_text)) {
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

std::vector<std::string> read_stops(Fields& fields) {
  const json* value = fields.find("stop");
  if (!value) return {};
  std::vector<std::string> stops;
  if (value->is_string()) stops.push_back(value->get<std::string>());
  if (is_array_of(*value, is_text)) stops = value->get<std::vector<std::string>>();
  bool empty_list = value->is_array() && value->empty();
  bool has_empty = std::find(stops.begin(), stops.end(), "") != stops.end();
  if ((stops.empty() && !empty_list) || has_empty || std::ssize(stops) > kMaxStops)
    fields.refuse("stop", fmt::format("'stop' must be a string or a list of at most {} strings, none of them "
                                      "empty, not {}",
                                      kMaxStops, value->dump()));
  return stops;
}

void read_stream_options(Fields& fields, CompletionCall& call) {
  const json* value = fields.find("stream_options");
  if (!value) return;
  if (!value->is_object()) return fields.refuse("stream_options", "'stream_options' must be an object");
  Fields options(*value);
  call.include_usage = options.boolean("include_usage", false);
  if (options.error()) fields.refuse("stream_options", options.error()->message);
}

void refuse_unsupported(Fields& fields) {
  fields.only("suffix", "");
  fields.only("presence_penalty", 0);
  fields.only("frequency_penalty", 0);
  fields.only("repetition_penalty", 1);
  fields.only("logit_bias", json::object());
  fields.only("min_p", 0);
  // For the caller's own book-keeping; they change no answer.
  for (const char* name : {"user", "metadata", "store"}) fields.find(name);
}

uint64_t fresh_seed() {
  thread_local std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

// What all choices share.
CompletionRequest read_request(Fields& fields) {
  CompletionRequest request;
  request.sampling.temperature = fields.number("temperature", 1, 0, 100);
  request.sampling.top_p = fields.number("top_p", 1, 1e-9, 1);
  request.sampling.top_k = fields.integer("top_k", -1, INT32_MAX).value_or(0);
  auto seed = fields.integer("seed", INT64_MIN, INT64_MAX);
  request.sampling.seed = seed ? static_cast<uint64_t>(*seed) : fresh_seed();
  request.logprobs = fields.integer("logprobs", 0, kMaxLogprobs);
  request.ignore_eos = fields.boolean("ignore_eos", false);
  request.stop = read_stops(fields);
  return request;
}

std::optional<ApiError> check_model(Fields& fields, const ServedName& model) {
  const json* name = fields.find("model");
  if (!name || !name->is_string()) return ApiError{.message = "'model' is missing", .param = "model"};
  if (name->get<std::string>() == model.name) return std::nullopt;
  return ApiError{.status = 404,
                  .message = fmt::format("the model '{}' does not exist; this server has '{}'",
                                         name->get<std::string>(), model.name),
                  .param = "model",
                  .code = "model_not_found"};
}

void add_choices(const Prompt& prompt, CompletionRequest request, bool echo, CompletionCall& call) {
  constexpr uint64_t kGolden = 0x9e3779b97f4a7c15ULL;
  request.prompt = prompt.tokens;
  if (echo) request.echo = prompt.text;
  for (int64_t choice = 0; choice < call.n; ++choice) {
    call.requests.push_back(request);
    request.sampling.seed += kGolden;  // each choice draws its own numbers
  }
}

// A default that reaches beyond the context is cut; what was asked for is not, and the engine refuses it.
int64_t max_tokens_for(const Prompt& prompt, std::optional<int64_t> asked, const ServedName& model) {
  if (asked) return *asked;
  return std::clamp<int64_t>(model.max_length - std::ssize(prompt.tokens), 1, 16);
}

std::variant<CompletionCall, ApiError> read_call(const json& body, const data::Tokenizer& tokenizer,
                                                 const ServedName& model) {
  Fields fields(body);
  if (auto error = check_model(fields, model)) return *error;
  CompletionCall call;
  CompletionRequest request = read_request(fields);
  auto max_tokens = fields.integer("max_tokens", 0, INT32_MAX);
  bool echo = fields.boolean("echo", false);
  call.n = fields.integer("n", 1, kMaxChoices).value_or(1);
  fields.only("best_of", call.n);
  call.stream = fields.boolean("stream", false);
  read_stream_options(fields, call);
  refuse_unsupported(fields);
  std::vector<Prompt> prompts = read_prompts(fields, tokenizer);
  if (max_tokens == 0 && !echo) fields.refuse("max_tokens", "'max_tokens' can be 0 only with echo");
  fields.refuse_unknown();
  if (fields.error()) return *fields.error();

  call.num_prompts = std::ssize(prompts);
  for (const Prompt& prompt : prompts) {
    request.max_tokens = max_tokens_for(prompt, max_tokens, model);
    add_choices(prompt, request, echo, call);
  }
  return call;
}

}  // namespace

std::variant<CompletionCall, ApiError> parse_completion_call(std::string_view body,
                                                             const data::Tokenizer& tokenizer,
                                                             const ServedName& model) {
  try {
    json parsed = json::parse(body);
    if (!parsed.is_object()) return ApiError{.message = "the body must be a JSON object"};
    return read_call(parsed, tokenizer, model);
  } catch (const json::parse_error& failure) {
    std::string text = failure.what();
    return ApiError{.message = "the body is no valid JSON: " + text.substr(text.find("] ") + 2)};
  } catch (const std::exception& failure) {
    return ApiError{.message = fmt::format("cannot read the body: {}", failure.what())};
  }
}

}  // namespace tessera::serve
