#include "kserve/rest_sink.h"

#include "http/error_body.h"
#include "kserve/rest.h"
#include "kserve/rest_codec.h"

namespace tessera::kserve {

std::shared_ptr<RestSink> RestSink::make(std::shared_ptr<HttpExchange> exchange, InferRequest request,
                                         bool generate, bool stream) {
  request.inputs.clear();
  std::shared_ptr<RestSink> sink(new RestSink(std::move(exchange), std::move(request), generate, stream));
  sink->exchange_->on_written = [weak = sink->weak_from_this()] {
    auto self = weak.lock();
    if (!self) return;
    self->writing_ = false;
    if (auto go_on = self->ready; go_on && !self->ended_) go_on();
  };
  return sink;
}

void RestSink::on_cancel(std::function<void()> cancel) {
  if (!ended_) exchange_->on_disconnect = std::move(cancel);
}

void RestSink::respond(InferResponse response) {
  if (stream_) return send_event(dump(generate_json(response)));
  whole_ = std::move(response);
}

void RestSink::send_event(const std::string& event) {
  if (!begun_) exchange_->begin_stream({.content_type = "text/event-stream; charset=utf-8"});
  begun_ = writing_ = true;
  exchange_->write("data: " + event + "\n\n");
}

void RestSink::finish() {
  if (!stream_) {
    auto response = !whole_     ? Result<HttpResponse>(invalid("the model gave no response"))
                    : generate_ ? Result<HttpResponse>(HttpResponse{.body = dump(generate_json(*whole_))})
                                : write_infer(*whole_, request_);
    if (!response) return fail(response.error());
    exchange_->respond(*response);
    return end();
  }
  if (!begun_) exchange_->begin_stream({.content_type = "text/event-stream; charset=utf-8"});
  exchange_->end_stream();
  end();
}

// The status of a stream that has begun is out already; the error follows inside it.
void RestSink::fail(const Error& error) {
  std::string body = kserve_error_body(error.message);
  if (begun_) {
    exchange_->write("data: " + body + "\n\n");
    exchange_->end_stream();
  } else {
    HttpResponse response{.status = status_of(error), .body = body};
    if (response.status == 429 || response.status == 503) response.headers = {{"Retry-After", "1"}};
    exchange_->respond(response);
  }
  end();
}

void RestSink::end() {
  ended_ = true;
  exchange_->on_disconnect = nullptr;
  exchange_->on_written = nullptr;
}

}  // namespace tessera::kserve
