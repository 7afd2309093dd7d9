#include "serve/openai_call.h"

#include <algorithm>
#include <ctime>
#include <limits>
#include <nlohmann/json.hpp>

#include "http/gate.h"
#include "serve/openai_tools.h"

namespace tessera::serve {

using nlohmann::json;

namespace {

// Of the answer's tokens, not the prompt's.
double mean_logprob(const CompletionProgress& answer) {
  size_t count = std::min(answer.tokens.size(), answer.logprobs.size());
  double sum = 0;
  for (size_t i = answer.logprobs.size() - count; i < answer.logprobs.size(); ++i)
    sum += answer.logprobs[i].logprob.value_or(0);
  return count ? sum / static_cast<double>(count) : -std::numeric_limits<double>::infinity();
}

class Call : public std::enable_shared_from_this<Call> {
 public:
  Call(HostedModelPtr model, std::shared_ptr<HttpExchange> exchange, CompletionCall call)
      : model_(std::move(model)),
        exchange_(std::move(exchange)),
        call_(std::move(call)),
        id_((call_.chat ? "chatcmpl-" : "cmpl-") + exchange_->request().id) {}

  ~Call() {
    if (call_.claim && !choices_.empty()) call_.claim->settle(prompt_tokens_ + completion_tokens_);
  }

  void start(HttpServer& server) {
    for (int64_t i = 0; i < call_.num_prompts; ++i)
      prompt_tokens_ += std::ssize(call_.requests[static_cast<size_t>(i * call_.candidates())].prompt);
    auto notify = [weak = weak_from_this(), &server] {
      server.post([weak] {
        if (auto call = weak.lock()) call->pump();
      });
    };
    auto choices = model_->engine->submit(std::move(call_.requests), notify);
    if (!choices) return respond(*exchange_, *model_->engine, to_api_error(choices.error()));
    choices_ = std::move(*choices);
    collected_.resize(choices_.size());
    readers_.assign(choices_.size(), AnswerReader(call_.tools));
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
      collected_[i].append(std::move(progress));
    }
    if (num_finished_ < choices_.size()) return;
    json body = head(call_.chat ? "chat.completion" : "text_completion");
    auto answers = answered();
    for (size_t i = 0; i < answers.size(); ++i) body["choices"].push_back(whole(i, *answers[i]));
    // vLLM has a chat's once beside its choices, which share the prompt.
    if (call_.chat && call_.with_prompt_logprobs)
      body["prompt_logprobs"] = prompt_logprobs_json(answers[0]->prompt_logprobs);
    body["usage"] = usage();
    exchange_->respond({.body = dump(body)});
    end();
  }

  json whole(size_t choice, CompletionProgress answer) {
    auto index = static_cast<int64_t>(choice);
    if (!call_.chat) {
      json out = completion_choice(index, answer, call_.with_logprobs);
      if (call_.with_prompt_logprobs) out["prompt_logprobs"] = prompt_logprobs_json(answer.prompt_logprobs);
      return out;
    }
    ChatText text = readers_[choice].read(answer);
    return chat_choice(index, text, answer, call_.with_logprobs);
  }

  // The likeliest n candidates of each prompt; all when no more were made.
  std::vector<const CompletionProgress*> answered() const {
    std::vector<const CompletionProgress*> out;
    for (int64_t prompt = 0; prompt < call_.num_prompts; ++prompt) {
      std::vector<std::pair<double, const CompletionProgress*>> ranked;
      for (int64_t i = 0; i < call_.candidates(); ++i) {
        const auto& candidate = collected_[static_cast<size_t>(prompt * call_.candidates() + i)];
        ranked.emplace_back(mean_logprob(candidate), &candidate);
      }
      if (call_.candidates() > call_.n)
        std::stable_sort(ranked.begin(), ranked.end(),
                         [](const auto& a, const auto& b) { return a.first > b.first; });
      for (int64_t i = 0; i < call_.n; ++i) out.push_back(ranked[static_cast<size_t>(i)].second);
    }
    return out;
  }

  void pump_stream() {
    std::string events;
    for (size_t i = 0; i < choices_.size(); ++i) {
      CompletionProgress progress = take(i);
      if (progress.error) return fail(*progress.error);
      ChatText text = readers_[i].read(progress);
      bool visible =
          !text.content.empty() || !text.calls.empty() || !progress.logprobs.empty() || progress.finished;
      if (visible) events += event(piece(i, text, progress));
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

  json piece(size_t choice, const ChatText& text, const CompletionProgress& progress) {
    auto index = static_cast<int64_t>(choice);
    if (!call_.chat) return completion_choice(index, progress, call_.with_logprobs);
    begun_choices_.resize(choices_.size());
    bool is_first = !begun_choices_[choice];
    begun_choices_[choice] = true;
    return chat_delta(index, text, progress, call_.with_logprobs, is_first);
  }

  CompletionProgress take(size_t choice) {
    CompletionProgress progress = choices_[choice]->take();
    completion_tokens_ += std::ssize(progress.tokens);
    // The choices of one prompt share it; it counts once.
    if (choice % static_cast<size_t>(call_.candidates()) == 0) cached_tokens_ += progress.cached_tokens;
    num_finished_ += progress.finished;
    return progress;
  }

  void begin() {
    if (!begun_) exchange_->begin_stream({.content_type = "text/event-stream; charset=utf-8"});
    begun_ = true;
  }

  std::string event(json choice) const {
    json body = head(call_.chat ? "chat.completion.chunk" : "text_completion");
    body["choices"].push_back(std::move(choice));
    if (call_.include_usage) body["usage"] = nullptr;
    return fmt::format("data: {}\n\n", dump(body));
  }

  std::string last_events() const {
    std::string events;
    if (call_.include_usage) {
      json body = head(call_.chat ? "chat.completion.chunk" : "text_completion");
      body["usage"] = usage();
      events = fmt::format("data: {}\n\n", dump(body));
    }
    return events + "data: [DONE]\n\n";
  }

  json head(const char* object) const {
    return {{"id", id_},
            {"object", object},
            {"created", created_},
            {"model", call_.model},
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
      exchange_->write(fmt::format("data: {}\n\n", api_error.body(exchange_->request().id)));
      exchange_->end_stream();
    } else {
      respond(*exchange_, *model_->engine, api_error);
    }
    end();
  }

  void cancel() {
    for (const auto& choice : choices_) model_->engine->cancel(choice->id());
  }

  void end() {
    ended_ = true;
    exchange_->on_disconnect = nullptr;
    exchange_->on_written = nullptr;
  }

  HostedModelPtr model_;
  std::shared_ptr<HttpExchange> exchange_;
  CompletionCall call_;
  std::string id_;
  int64_t created_ = std::time(nullptr), prompt_tokens_ = 0, completion_tokens_ = 0, cached_tokens_ = 0;
  Engine::Completions choices_;
  std::vector<CompletionProgress> collected_;
  std::vector<AnswerReader> readers_;  // of choices_
  std::vector<bool> begun_choices_;
  size_t num_finished_ = 0;
  bool begun_ = false, writing_ = false, ended_ = false;
};

}  // namespace

void respond(HttpExchange& exchange, const ApiError& error) {
  HttpResponse response{.status = error.status, .body = error.body(exchange.request().id)};
  if (error.retry_after_s) response.headers.emplace_back("Retry-After", retry_after(*error.retry_after_s));
  exchange.respond(response);
}

void respond(HttpExchange& exchange, const Engine& engine, ApiError error) {
  bool may_come_back = error.status == 429 || error.status == 503;
  if (may_come_back && !error.retry_after_s) error.retry_after_s = static_cast<double>(engine.retry_after_s());
  respond(exchange, error);
}

void start_call(HostedModelPtr model, HttpServer& server, std::shared_ptr<HttpExchange> exchange,
                CompletionCall call) {
  std::make_shared<Call>(std::move(model), std::move(exchange), std::move(call))->start(server);
}

}  // namespace tessera::serve
