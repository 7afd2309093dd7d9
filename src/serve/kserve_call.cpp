#include "serve/kserve_call.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "serve/attribution.h"

namespace tessera::serve {

using kserve::InferRequest;
using kserve::InferResponse;
using nlohmann::json;

namespace {

// What the request wants to be told besides the text.
struct Extras {
  bool input_in_output = true, finish_reason = false, input_tokens = false, output_tokens = false;
};

Result<bool> flag(const InferRequest& request, const char* name, bool fallback) {
  if (const kserve::Tensor* tensor = request.input(name)) return bool_of(*tensor);
  json value = request.parameters.value(name, json(fallback));
  if (value.is_boolean()) return value.get<bool>();
  return invalid("parameter '{}' must be true or false, not {}", name, value.dump());
}

bool asks_for(const InferRequest& request, const char* output) {
  return std::ranges::find(request.outputs, output, &kserve::RequestedOutput::name) != request.outputs.end();
}

// An output is wanted when its switch is on, or its name among those that are asked for.
Result<Extras> read_extras(const InferRequest& request) {
  Extras extras;
  TESSERA_ASSIGN_OR_RETURN(bool exclude, flag(request, "exclude_input_in_output", false));
  extras.input_in_output = !exclude;
  TESSERA_ASSIGN_OR_RETURN(extras.finish_reason, flag(request, "return_finish_reason", false));
  TESSERA_ASSIGN_OR_RETURN(extras.input_tokens, flag(request, "return_num_input_tokens", false));
  TESSERA_ASSIGN_OR_RETURN(extras.output_tokens, flag(request, "return_num_output_tokens", false));
  extras.finish_reason |= asks_for(request, "finish_reason");
  extras.input_tokens |= asks_for(request, "num_input_tokens");
  extras.output_tokens |= asks_for(request, "num_output_tokens");
  return extras;
}

Status merge_sampling(const InferRequest& request, json& body) {
  const kserve::Tensor* tensor = request.input("sampling_parameters");
  if (!tensor) return {};
  TESSERA_ASSIGN_OR_RETURN(std::string text, text_of(*tensor));
  json parsed = json::parse(text, nullptr, false);
  if (!parsed.is_object())
    return invalid("'sampling_parameters' must be a JSON object, not {}", text.substr(0, 60));
  for (auto& [name, value] : parsed.items()) {
    // Triton's clients send numbers as texts here.
    json number =
        value.is_string() && name != "stop" ? json::parse(value.get<std::string>(), nullptr, false) : value;
    body[name] = number.is_discarded() ? value : number;
  }
  return {};
}

// The body of POST /v1/completions that asks for the same.
Result<json> completion_body(const InferRequest& request, const std::string& model) {
  static const std::vector<std::string> kOwn = {"exclude_input_in_output",
                                                "return_finish_reason",
                                                "return_num_input_tokens",
                                                "return_num_output_tokens",
                                                "stream",
                                                "timeout",
                                                "binary_data_output",
                                                "triton_enable_empty_final_response",
                                                "sequence_id",
                                                "sequence_start",
                                                "sequence_end"};
  json body = {{"model", model}};
  for (const auto& [name, value] : request.parameters.items())
    if (std::ranges::find(kOwn, name) == kOwn.end()) body[name] = value;
  TESSERA_RETURN_IF_ERROR(merge_sampling(request, body));
  TESSERA_ASSIGN_OR_RETURN(std::string prompt, text_of(*request.input("text_input")));
  body["prompt"] = std::move(prompt);
  if (body.value("n", json(1)) != json(1) || body.contains("best_of"))
    return invalid("'n' and 'best_of' above 1 are not served over this protocol; use POST /v1/completions");
  for (const char* name : {"logprobs", "prompt_logprobs"})
    if (body.contains(name))
      return invalid("'{}' are not served over this protocol; use POST /v1/completions", name);
  return body;
}

double timeout_s(const InferRequest& request) {
  json value = request.parameters.value("timeout", json(0));
  return value.is_number() && value.get<double>() > 0 ? value.get<double>() / 1e6 : 0;
}

Error to_error(const ApiError& error) {
  auto code = error.status == 404   ? ErrorCode::not_found
              : error.status == 429 ? ErrorCode::resource_exhausted
              : error.status < 500  ? ErrorCode::invalid_argument
                                    : ErrorCode::unavailable;
  return {code, error.message};
}

kserve::Tensor number_tensor(const char* name, uint32_t value) {
  return {.name = name,
          .datatype = "UINT32",
          .shape = {1},
          .raw = std::string(reinterpret_cast<const char*>(&value), sizeof(value))};
}

// What was read of a request.
struct Prepared {
  Extras extras;
  std::string prompt;  // when it belongs into the output
  CompletionCall call;
};

Result<Prepared> prepare(const InferRequest& request, const HostedModel& model) {
  Prepared out;
  TESSERA_ASSIGN_OR_RETURN(out.extras, read_extras(request));
  TESSERA_ASSIGN_OR_RETURN(json body, completion_body(request, model.name.name));
  std::string text = body.dump(-1, ' ', false, json::error_handler_t::replace);
  auto parsed = parse_completion_call(text, *model.tokenizer, model.name);
  if (const auto* error = std::get_if<ApiError>(&parsed)) return to_error(*error);
  out.call = std::move(std::get<CompletionCall>(parsed));
  const std::string called = out.call.model;  // the model, or one of its adapters
  if (auto error = attribute({.id = request.request_id, .caller = request.caller}, called, out.call))
    return to_error(*error);
  out.call.requests[0].timeout_s = timeout_s(request);
  if (out.extras.input_in_output) out.prompt = body["prompt"].get<std::string>();
  return out;
}

class KServeCall : public std::enable_shared_from_this<KServeCall> {
 public:
  KServeCall(HostedModelPtr model, HttpServer& server, std::string id, bool stream,
             std::shared_ptr<kserve::InferSink> sink)
      : model_(std::move(model)),
        server_(server),
        id_(std::move(id)),
        stream_(stream),
        sink_(std::move(sink)),
        hold_(server.hold()) {}

  ~KServeCall() {
    if (claim_ && submitted_) claim_->settle(prompt_tokens_ + output_tokens_);
  }

  void start(BodyReaders& readers, InferRequest request) {
    auto self = shared_from_this();
    auto read = [model = model_, request = std::move(request)] { return prepare(request, *model); };
    readers.run(std::move(read), [self](Result<Prepared> prepared) {
      if (self->ended_) return;
      if (!prepared) return self->fail(prepared.error());
      self->submit(std::move(*prepared));
    });
  }

  void cancel() {
    if (ended_) return;
    if (choice_) model_->engine->cancel(choice_->id());
    end();
  }

 private:
  void submit(Prepared prepared) {
    extras_ = prepared.extras;
    prompt_ = std::move(prepared.prompt);
    prompt_tokens_ = std::ssize(prepared.call.requests[0].prompt);
    claim_ = std::move(prepared.call.claim);
    auto notify = [self = shared_from_this()] { self->server_.post([self] { self->pump(); }); };
    auto choices = model_->engine->submit(std::move(prepared.call.requests), notify);
    if (!choices) return fail(choices.error());
    choice_ = choices->front();
    submitted_ = true;
    sink_->ready = [weak = weak_from_this()] {
      if (auto self = weak.lock()) self->pump();
    };
  }

  void pump() {
    if (ended_ || sink_->busy()) return;
    CompletionProgress progress = choice_->take();
    output_tokens_ += std::ssize(progress.tokens);
    if (progress.error) return fail(*progress.error);
    text_ += progress.text;
    if (stream_ && (!text_.empty() || progress.finished)) respond(progress);
    if (!progress.finished) return;
    if (!stream_) respond(progress);
    std::shared_ptr<kserve::InferSink> sink = sink_;
    end();
    sink->finish();
  }

  // What the call holds, and what holds it, is let go.
  void end() {
    ended_ = true;
    if (sink_) sink_->ready = nullptr;
    sink_ = nullptr;
    choice_ = nullptr;
    hold_ = nullptr;
  }

  void respond(const CompletionProgress& progress) {
    InferResponse response{.model = model_->name.name, .version = kserve::kOnlyVersion, .id = id_};
    response.outputs.push_back(
        kserve::text_tensor("text_output", {std::exchange(prompt_, "") + std::exchange(text_, "")}));
    if (extras_.finish_reason)
      response.outputs.push_back(
          kserve::text_tensor("finish_reason", {progress.reason ? to_string(*progress.reason) : ""}));
    if (extras_.input_tokens)
      response.outputs.push_back(number_tensor("num_input_tokens", static_cast<uint32_t>(prompt_tokens_)));
    if (extras_.output_tokens)
      response.outputs.push_back(number_tensor("num_output_tokens", static_cast<uint32_t>(output_tokens_)));
    if (stream_) response.parameters["triton_final_response"] = progress.finished;
    sink_->respond(std::move(response));
  }

  void fail(const Error& error) {
    std::shared_ptr<kserve::InferSink> sink = sink_;
    end();
    sink->fail(error);
  }

  HostedModelPtr model_;
  HttpServer& server_;
  std::string id_;
  bool stream_, submitted_ = false, ended_ = false;
  std::shared_ptr<kserve::InferSink> sink_;
  Extras extras_;
  std::string prompt_, text_;  // not sent yet
  int64_t prompt_tokens_ = 0, output_tokens_ = 0;
  std::shared_ptr<void> hold_;  // of the server's drain
  std::shared_ptr<TokenClaim> claim_;
  std::shared_ptr<Completion> choice_;
};

}  // namespace

std::function<void()> start_kserve_call(HostedModelPtr model, HttpServer& server, BodyReaders& readers,
                                        InferRequest request, bool stream,
                                        std::shared_ptr<kserve::InferSink> sink) {
  auto call = std::make_shared<KServeCall>(std::move(model), server, request.id, stream, std::move(sink));
  call->start(readers, std::move(request));
  return [weak = std::weak_ptr(call)] {
    if (auto self = weak.lock()) self->cancel();
  };
}

}  // namespace tessera::serve
