#include "serve/openai_api.h"

#include <nlohmann/json.hpp>

#include "http/error_body.h"
#include "serve/attribution.h"
#include "serve/openai_call.h"
#include "serve/openai_json.h"
#include "serve/openai_tokens.h"

namespace tessera::serve {

using nlohmann::json;

namespace {

constexpr double kComesBackSeconds = 5;  // of a model that is loading

// The value of the top-level "model" of a JSON body, without building the rest. Nothing when it has none that
// is a text: the model's own reader says so.
std::optional<std::string> model_named_in(const std::string& body) {
  bool wanted = false;
  std::optional<std::string> name;
  auto look = [&](int depth, json::parse_event_t event, json& value) {
    if (depth != 1) return depth < 1;
    if (event == json::parse_event_t::key) wanted = value == json("model");
    bool here = event == json::parse_event_t::value && wanted && value.is_string();
    if (here) name = value.get<std::string>();
    return event == json::parse_event_t::key;
  };
  [[maybe_unused]] json rest = json::parse(body, look, /*allow_exceptions=*/false);
  return name;
}

// Of the model, or of one of its adapters; -1: its own.
json model_json(const HostedModel& model, int64_t adapter) {
  json out = {{"id", model.name.name_of(adapter)},
              {"object", "model"},
              {"created", model.created},
              {"owned_by", "tessera"},
              {"max_model_len", model.name.max_length}};
  if (adapter >= 0) out["parent"] = model.name.name;
  return out;
}

ApiError no_model(const Error& found) {
  ApiError error = to_api_error(found);
  error.param = "model";
  if (error.status == 404) error.code = "model_not_found";
  if (error.status == 503) error.retry_after_s = kComesBackSeconds;
  return error;
}

bool makes_tokens(const std::string& path) {
  return path == "/v1/chat/completions" || path == "/v1/completions";
}

bool converts(const std::string& path) {
  return path == "/tokenize" || path == "/detokenize";
}

}  // namespace

bool OpenAiApi::serves(const std::string& path) {
  return path.starts_with("/v1/") || converts(path);
}

void OpenAiApi::handle(std::shared_ptr<HttpExchange> exchange) {
  const HttpRequest& request = exchange->request();
  bool posted = request.method == "POST", takes_body = makes_tokens(request.path) || converts(request.path);
  if (takes_body && posted) return find_model(std::move(exchange));
  if (!takes_body && request.method == "GET") return exchange->respond(about_models(request));
  exchange->respond(wrong_method(request, takes_body ? "POST" : "GET"));
}

HttpResponse OpenAiApi::about_models(const HttpRequest& request) const {
  const std::string list = "/v1/models", one = list + "/";
  json all = json::array();
  for (const auto& entry : models_.entries()) {
    if (!entry.model) continue;
    for (int64_t adapter = -1; adapter < std::ssize(entry.model->name.adapters); ++adapter) {
      all.push_back(model_json(*entry.model, adapter));
      if (request.path == one + entry.model->name.name_of(adapter)) return {.body = dump(all.back())};
    }
  }
  if (request.path == list) return {.body = dump({{"object", "list"}, {"data", all}})};
  HttpError error{.status = 404, .message = fmt::format("there is no {}", request.path)};
  if (request.path.starts_with(one)) error.code = "model_not_found";
  return error_response(error, request);
}

template <class Read, class Then>
void OpenAiApi::read_apart(std::shared_ptr<HttpExchange> exchange, Read read, Then answer) {
  auto left = std::make_shared<bool>(false);  // touched on the server's thread only
  exchange->on_disconnect = [left] { *left = true; };
  readers_.run(read, [exchange, left, answer](auto result) {
    if (*left) return;
    exchange->on_disconnect = nullptr;
    answer(std::move(result));
  });
}

void OpenAiApi::find_model(std::shared_ptr<HttpExchange> exchange) {
  auto entries = models_.entries();
  // One model needs no look-up: its reader of requests checks the name.
  if (entries.size() == 1) return run(std::move(exchange), entries[0].name);
  auto read = [exchange] { return model_named_in(exchange->request().body); };
  read_apart(exchange, read, [this, exchange, first = entries[0].name](std::optional<std::string> name) {
    run(exchange, name.value_or(first));
  });
}

void OpenAiApi::run(std::shared_ptr<HttpExchange> exchange, const std::string& name) {
  auto model = models_.find(name);
  if (!model) return respond(*exchange, no_model(model.error()));
  bool completes = makes_tokens(exchange->request().path);
  completes ? complete(std::move(exchange), *model) : convert(std::move(exchange), *model);
}

void OpenAiApi::complete(std::shared_ptr<HttpExchange> exchange, HostedModelPtr model) {
  auto read = [exchange, model] {
    const HttpRequest& request = exchange->request();
    auto parse = request.path == "/v1/completions" ? parse_completion_call : parse_chat_call;
    return parse(request.body, *model->tokenizer, model->name);
  };
  read_apart(exchange, read, [this, exchange, model](std::variant<CompletionCall, ApiError> parsed) {
    if (const auto* error = std::get_if<ApiError>(&parsed)) return respond(*exchange, *model->engine, *error);
    auto& call = std::get<CompletionCall>(parsed);
    if (auto error = attribute(exchange->request(), std::string(call.model), call))
      return respond(*exchange, *model->engine, *error);
    start_call(model, server_, exchange, std::move(call));
  });
}

void OpenAiApi::convert(std::shared_ptr<HttpExchange> exchange, HostedModelPtr model) {
  auto read = [exchange, model] {
    const HttpRequest& request = exchange->request();
    auto turn = request.path == "/tokenize" ? tokenize : detokenize;
    return turn(request.body, *model->tokenizer, model->name);
  };
  read_apart(exchange, read, [exchange, model](std::variant<std::string, ApiError> answer) {
    if (const auto* error = std::get_if<ApiError>(&answer)) return respond(*exchange, *model->engine, *error);
    exchange->respond({.body = std::get<std::string>(answer)});
  });
}

}  // namespace tessera::serve
