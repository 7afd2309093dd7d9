#include "serve/openai_api.h"

#include <fmt/ranges.h>

#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <ctime>
#include <nlohmann/json.hpp>

#include "serve/attribution.h"
#include "serve/openai_call.h"
#include "serve/openai_tokens.h"

namespace tessera::serve {

namespace {

constexpr size_t kReaders = 2;

}  // namespace

struct OpenAiApi::Readers {
  boost::asio::thread_pool pool{kReaders};
};

OpenAiApi::OpenAiApi(Engine& engine, HttpServer& server, data::TokenizerPtr tokenizer, ServedName model)
    : engine_(engine),
      server_(server),
      tokenizer_(std::move(tokenizer)),
      model_(std::move(model)),
      created_(std::time(nullptr)),
      readers_(std::make_unique<Readers>()) {}

OpenAiApi::~OpenAiApi() {
  readers_->pool.join();
}

void OpenAiApi::handle(std::shared_ptr<HttpExchange> exchange) {
  const HttpRequest& request = exchange->request();
  bool chat = request.path == "/v1/chat/completions", completes = chat || request.path == "/v1/completions";
  bool to_tokens = request.path == "/tokenize", converts = to_tokens || request.path == "/detokenize";
  const char* allowed = completes || converts ? "POST" : "GET";
  if (completes && request.method == "POST") return complete(std::move(exchange), chat);
  if (converts && request.method == "POST") return convert(std::move(exchange), to_tokens);
  if (!completes && !converts && request.method == "GET") return exchange->respond(get(request));
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
  std::vector<std::string> all;
  for (int64_t adapter = -1; adapter < std::ssize(model_.adapters); ++adapter) {
    all.push_back(model_json(adapter));
    if (path == models + "/" + model_.name_of(adapter)) return {.body = all.back()};
  }
  if (path == models) return {.body = fmt::format(R"({{"object":"list","data":[{}]}})", fmt::join(all, ","))};
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

std::string OpenAiApi::model_json(int64_t adapter) const {
  nlohmann::json model = {{"id", model_.name_of(adapter)},
                          {"object", "model"},
                          {"created", created_},
                          {"owned_by", "tessera"},
                          {"max_model_len", model_.max_length}};
  if (adapter >= 0) model["parent"] = model_.name;
  return model.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

template <class Read, class Then>
void OpenAiApi::read_apart(std::shared_ptr<HttpExchange> exchange, Read read, Then answer) {
  auto left = std::make_shared<bool>(false);  // touched on the server's thread only
  exchange->on_disconnect = [left] { *left = true; };
  boost::asio::post(readers_->pool, [this, exchange, left, read, answer] {
    auto result = std::make_shared<decltype(read())>(read());
    server_.post([exchange, left, result, answer] {
      if (*left) return;
      exchange->on_disconnect = nullptr;
      answer(std::move(*result));
    });
  });
}

void OpenAiApi::complete(std::shared_ptr<HttpExchange> exchange, bool chat) {
  auto read = [this, exchange, chat] {
    const std::string& body = exchange->request().body;
    return chat ? parse_chat_call(body, *tokenizer_, model_) : parse_completion_call(body, *tokenizer_, model_);
  };
  read_apart(exchange, read, [this, exchange](std::variant<CompletionCall, ApiError> parsed) {
    if (const auto* error = std::get_if<ApiError>(&parsed)) return respond(*exchange, engine_, *error);
    auto& call = std::get<CompletionCall>(parsed);
    const std::string name = call.model;
    if (auto error = attribute(exchange->request(), name, call)) return respond(*exchange, engine_, *error);
    start_call(engine_, server_, exchange, std::move(call), name);
  });
}

void OpenAiApi::convert(std::shared_ptr<HttpExchange> exchange, bool to_tokens) {
  auto read = [this, exchange, to_tokens] {
    return (to_tokens ? tokenize : detokenize)(exchange->request().body, *tokenizer_, model_);
  };
  read_apart(exchange, read, [this, exchange](std::variant<std::string, ApiError> answer) {
    if (const auto* error = std::get_if<ApiError>(&answer)) return respond(*exchange, engine_, *error);
    exchange->respond({.body = std::get<std::string>(answer)});
  });
}

}  // namespace tessera::serve
