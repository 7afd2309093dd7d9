#include "serve/openai_api.h"

#include <ctime>
#include <nlohmann/json.hpp>

#include "serve/attribution.h"
#include "serve/openai_call.h"

namespace tessera::serve {

OpenAiApi::OpenAiApi(Engine& engine, HttpServer& server, data::TokenizerPtr tokenizer, ServedName model)
    : engine_(engine),
      server_(server),
      tokenizer_(std::move(tokenizer)),
      model_(std::move(model)),
      created_(std::time(nullptr)) {}

void OpenAiApi::handle(std::shared_ptr<HttpExchange> exchange) {
  const HttpRequest& request = exchange->request();
  bool chat = request.path == "/v1/chat/completions", completes = chat || request.path == "/v1/completions";
  const char* allowed = completes ? "POST" : "GET";
  if (completes && request.method == "POST") return complete(std::move(exchange), chat);
  if (!completes && request.method == "GET") return exchange->respond(get(request));
  ApiError error{.status = 405,
                 .message = fmt::format("{} does not take {}; use {}", request.path, request.method, allowed)};
  exchange->respond({.status = error.status, .body = error.body(request.id), .headers = {{"Allow", allowed}}});
}

HttpResponse OpenAiApi::get(const HttpRequest& request) const {
  const std::string models = "/v1/models", &path = request.path;
  if (path == "/health") return health(request);
  if (path == "/metrics")
    return {.body = engine_.metrics().render(model_.name, engine_.gauges()),
            .content_type = "text/plain; version=0.0.4; charset=utf-8"};
  if (path == models) return {.body = fmt::format(R"({{"object":"list","data":[{}]}})", model_json())};
  if (path == models + "/" + model_.name) return {.body = model_json()};
  ApiError error{.status = 404, .message = fmt::format("there is no {}", path)};
  if (path.starts_with(models + "/")) error.code = "model_not_found";
  return {.status = error.status, .body = error.body(request.id)};
}

HttpResponse OpenAiApi::health(const HttpRequest& request) const {
  EngineHealth health = engine_.health();
  if (health.ready) return {.body = R"({"status":"ok"})"};
  ApiError error{.status = 503, .message = health.reason, .type = "service_unavailable_error"};
  return {.status = error.status, .body = error.body(request.id)};
}

std::string OpenAiApi::model_json() const {
  nlohmann::json model = {{"id", model_.name},
                          {"object", "model"},
                          {"created", created_},
                          {"owned_by", "tessera"},
                          {"max_model_len", model_.max_length}};
  return model.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void OpenAiApi::complete(std::shared_ptr<HttpExchange> exchange, bool chat) {
  const std::string& body = exchange->request().body;
  auto parsed =
      chat ? parse_chat_call(body, *tokenizer_, model_) : parse_completion_call(body, *tokenizer_, model_);
  if (const auto* error = std::get_if<ApiError>(&parsed)) return respond(*exchange, engine_, *error);
  auto& call = std::get<CompletionCall>(parsed);
  if (auto error = attribute(exchange->request(), model_.name, call))
    return respond(*exchange, engine_, *error);
  start_call(engine_, server_, std::move(exchange), std::move(call), model_.name);
}

}  // namespace tessera::serve
