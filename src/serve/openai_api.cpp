#include "serve/openai_api.h"

#include <ctime>
#include <nlohmann/json.hpp>
#include <random>

namespace tessera::serve {

using nlohmann::json;

namespace {

// Tokens may be parts of characters; JSON cannot carry those.
std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

void respond(HttpExchange& exchange, const ApiError& error) {
  HttpResponse response{.status = error.status, .body = error.body()};
  if (error.status == 429 || error.status == 503) response.headers.emplace_back("Retry-After", "1");
  exchange.respond(response);
}

std::string fresh_id() {
  thread_local std::random_device device;
  return fmt::format("cmpl-{:08x}{:08x}{:08x}", device(), device(), device());
}

json logprobs_json(const std::vector<TokenLogprobs>& tokens) {
  json out = {{"tokens", json::array()},
              {"token_logprobs", json::array()},
              {"top_logprobs", json::array()},
              {"text_offset", json::array()}};
  for (const TokenLogprobs& token : tokens) {
    json top = json::object();
    for (const auto& [text, logprob] : token.top) top[text] = logprob;
    out["tokens"].push_back(token.token);
    out["token_logprobs"].push_back(token.logprob ? json(*token.logprob) : json(nullptr));
    out["top_logprobs"].push_back(token.logprob ? top : json(nullptr));
    out["text_offset"].push_back(token.text_offset);
  }
  return out;
}

json choice_json(int64_t index, const CompletionProgress& progress, bool with_logprobs) {
  return {{"index", index},
          {"text", progress.text},
          {"logprobs", with_logprobs ? logprobs_json(progress.logprobs) : json(nullptr)},
          {"finish_reason", progress.reason ? json(to_string(*progress.reason)) : json(nullptr)}};
}

// One call under way: the choices of all its prompts, streamed or collected. Kept alive by the exchange's
// callbacks until it has answered.
class Call : public std::enable_shared_from_this<Call> {
 public:
  Call(Engine& engine, std::shared_ptr<HttpExchange> exchange, CompletionCall call, std::string model)
      : engine_(engine), exchange_(std::move(exchange)), call_(std::move(call)), model_(std::move(model)) {}

  void start(HttpServer& server) {
    with_logprobs_ = call_.requests[0].logprobs.has_value();
    for (int64_t i = 0; i < call_.num_prompts; ++i)
      prompt_tokens_ += std::ssize(call_.requests[static_cast<size_t>(i * call_.n)].prompt);
    auto notify = [weak = weak_from_this(), &server] {
      server.post([weak] {
        if (auto call = weak.lock()) call->pump();
      });
    };
    auto choices = engine_.submit(std::move(call_.requests), notify);
    if (!choices) return respond(*exchange_, to_api_error(choices.error()));
    choices_ = std::move(*choices);
    collected_.resize(choices_.size());
    exchange_->on_disconnect = [self = shared_from_this()] { self->cancel(); };
    exchange_->on_written = [self = shared_from_this()] {
      self->writing_ = false;
      self->pump();
    };
  }

 private:
  void pump() {
    if (writing_ || ended_) return;
    call_.stream ? pump_stream() : collect();
  }

  void collect() {
    for (size_t i = 0; i < choices_.size(); ++i) {
      CompletionProgress progress = take(i);
      if (progress.error) return fail(*progress.error);
      CompletionProgress& all = collected_[i];
      all.text += progress.text;
      std::move(progress.logprobs.begin(), progress.logprobs.end(), std::back_inserter(all.logprobs));
      if (progress.reason) all.reason = progress.reason;
    }
    if (num_finished_ < choices_.size()) return;
    json body = head();
    for (size_t i = 0; i < choices_.size(); ++i)
      body["choices"].push_back(choice_json(static_cast<int64_t>(i), collected_[i], with_logprobs_));
    body["usage"] = usage();
    exchange_->respond({.body = dump(body)});
    end();
  }

  void pump_stream() {
    std::string events;
    for (size_t i = 0; i < choices_.size(); ++i) {
      CompletionProgress progress = take(i);
      if (progress.error) return fail(*progress.error);
      bool visible = !progress.text.empty() || !progress.logprobs.empty() || progress.finished;
      if (visible) events += event(choice_json(static_cast<int64_t>(i), progress, with_logprobs_));
    }
    bool all_finished = num_finished_ == choices_.size();
    if (all_finished) events += last_events();
    if (events.empty()) return;
    begin();
    writing_ = true;
    exchange_->write(events);
    if (!all_finished) return;
    exchange_->end_stream();
    end();
  }

  CompletionProgress take(size_t choice) {
    CompletionProgress progress = choices_[choice]->take();
    completion_tokens_ += std::ssize(progress.tokens);
    // The choices of one prompt share it; it counts once.
    if (choice % static_cast<size_t>(call_.n) == 0) cached_tokens_ += progress.cached_tokens;
    num_finished_ += progress.finished;
    return progress;
  }

  void begin() {
    if (!begun_) exchange_->begin_stream("text/event-stream; charset=utf-8");
    begun_ = true;
  }

  std::string event(json choice) const {
    json body = head();
    body["choices"].push_back(std::move(choice));
    if (call_.include_usage) body["usage"] = nullptr;
    return fmt::format("data: {}\n\n", dump(body));
  }

  std::string last_events() const {
    std::string events;
    if (call_.include_usage) {
      json body = head();
      body["usage"] = usage();
      events = fmt::format("data: {}\n\n", dump(body));
    }
    return events + "data: [DONE]\n\n";
  }

  json head() const {
    return {{"id", id_},
            {"object", "text_completion"},
            {"created", created_},
            {"model", model_},
            {"choices", json::array()}};
  }

  json usage() const {
    return {{"prompt_tokens", prompt_tokens_},
            {"completion_tokens", completion_tokens_},
            {"total_tokens", prompt_tokens_ + completion_tokens_},
            {"prompt_tokens_details", {{"cached_tokens", cached_tokens_}}}};
  }

  // The status of a stream that has begun is out already; the error follows inside it.
  void fail(const Error& error) {
    cancel();
    ApiError api_error = to_api_error(error);
    if (begun_) {
      exchange_->write(fmt::format("data: {}\n\n", api_error.body()));
      exchange_->end_stream();
    } else {
      respond(*exchange_, api_error);
    }
    end();
  }

  void cancel() {
    for (const auto& choice : choices_) engine_.cancel(choice->id());
  }

  void end() {
    ended_ = true;
    exchange_->on_disconnect = nullptr;
    exchange_->on_written = nullptr;
  }

  Engine& engine_;
  std::shared_ptr<HttpExchange> exchange_;
  CompletionCall call_;
  std::string model_, id_ = fresh_id();
  int64_t created_ = std::time(nullptr), prompt_tokens_ = 0, completion_tokens_ = 0, cached_tokens_ = 0;
  Engine::Completions choices_;
  std::vector<CompletionProgress> collected_;
  size_t num_finished_ = 0;
  bool with_logprobs_ = false, begun_ = false, writing_ = false, ended_ = false;
};

}  // namespace

OpenAiApi::OpenAiApi(Engine& engine, HttpServer& server, data::TokenizerPtr tokenizer, ServedName model)
    : engine_(engine),
      server_(server),
      tokenizer_(std::move(tokenizer)),
      model_(std::move(model)),
      created_(std::time(nullptr)) {}

void OpenAiApi::handle(std::shared_ptr<HttpExchange> exchange) {
  const HttpRequest& request = exchange->request();
  bool completions = request.path == "/v1/completions";
  const char* allowed = completions ? "POST" : "GET";
  if (completions && request.method == "POST") return complete(std::move(exchange));
  if (!completions && request.method == "GET") return exchange->respond(get(request.path));
  ApiError error{.status = 405,
                 .message = fmt::format("{} does not take {}; use {}", request.path, request.method, allowed)};
  exchange->respond({.status = error.status, .body = error.body(), .headers = {{"Allow", allowed}}});
}

HttpResponse OpenAiApi::get(const std::string& path) const {
  const std::string models = "/v1/models";
  if (path == "/health") return health();
  if (path == "/metrics")
    return {.body = engine_.metrics().render(model_.name, engine_.gauges()),
            .content_type = "text/plain; version=0.0.4; charset=utf-8"};
  if (path == models) return {.body = fmt::format(R"({{"object":"list","data":[{}]}})", model_json())};
  if (path == models + "/" + model_.name) return {.body = model_json()};
  ApiError error{.status = 404, .message = fmt::format("there is no {}", path)};
  if (path.starts_with(models + "/")) error.code = "model_not_found";
  return {.status = error.status, .body = error.body()};
}

HttpResponse OpenAiApi::health() const {
  if (auto failure = engine_.failure()) {
    ApiError error{.status = 503, .message = failure->message, .type = "service_unavailable_error"};
    return {.status = error.status, .body = error.body()};
  }
  return {.body = R"({"status":"ok"})"};
}

std::string OpenAiApi::model_json() const {
  return dump({{"id", model_.name},
               {"object", "model"},
               {"created", created_},
               {"owned_by", "tessera"},
               {"max_model_len", model_.max_length}});
}

void OpenAiApi::complete(std::shared_ptr<HttpExchange> exchange) {
  auto parsed = parse_completion_call(exchange->request().body, *tokenizer_, model_);
  if (const auto* error = std::get_if<ApiError>(&parsed)) return respond(*exchange, *error);
  auto call = std::make_shared<Call>(engine_, std::move(exchange), std::get<CompletionCall>(std::move(parsed)),
                                     model_.name);
  call->start(server_);
}

}  // namespace tessera::serve
