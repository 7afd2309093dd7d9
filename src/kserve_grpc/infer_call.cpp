#include "kserve_grpc/infer_call.h"

#include "http/gate.h"
#include "kserve_grpc/convert.h"
#include "kserve_grpc/link.h"

namespace tessera::kserve {

namespace {

// Counts a request on its key's quota.
Status admit(const CallContext& context) {
  if (!context.caller) return {};
  double wait_s = context.caller->quota->take_request();
  if (!(wait_s > 0)) return {};
  return make_error(ErrorCode::resource_exhausted, "'{}' may send {} requests a minute; try again in {} s",
                    context.caller->tenant, context.caller->quota->limits().requests_per_minute,
                    retry_after(wait_s));
}

Result<InferRequest> read(const CallContext& context, const inference::ModelInferRequest& message) {
  TESSERA_RETURN_IF_ERROR(admit(context));
  TESSERA_ASSIGN_OR_RETURN(InferRequest request, from_message(message));
  request.caller = context.caller;
  request.request_id = context.request_id;
  return request;
}

// Backend's thread, but for the Link.
class UnarySink : public InferSink {
 public:
  UnarySink(UnaryCall::Handle call, inference::ModelInferResponse* response)
      : call_(std::move(call)), response_(response) {}

  static void begin(const std::shared_ptr<UnarySink>& self, const CallContext& context, InferRequest request) {
    if (self->cancelled_) return;
    self->request_ = request;
    self->request_.inputs.clear();
    auto cancel = context.backend.infer(std::move(request), false, self);
    if (!self->ended_) self->cancel_ = std::move(cancel);
  }
  void cancel() {
    cancelled_ = true;
    if (auto cancel = std::exchange(cancel_, nullptr)) cancel();
  }

  void respond(InferResponse response) override { whole_ = std::move(response); }
  void finish() override {
    if (!whole_) return end({grpc::StatusCode::INTERNAL, "the model gave no response"});
    // The message is gRPC's again once the call is over.
    call_->use([&](auto&) { to_message(*whole_, request_, *response_); });
    end(grpc::Status::OK);
  }
  void fail(const Error& error) override { end(to_grpc(error)); }

 private:
  void end(const grpc::Status& status) {
    ended_ = true;
    cancel_ = nullptr;
    call_->finish(status);
  }

  UnaryCall::Handle call_;
  inference::ModelInferResponse* response_;
  InferRequest request_;  // without its tensors
  std::optional<InferResponse> whole_;
  std::function<void()> cancel_;
  bool ended_ = false, cancelled_ = false;
};

using StreamReactor =
    grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>;

// Answers of all requests of one stream, one write at a time. Backend's thread, but for the Link.
class Stream : public std::enable_shared_from_this<Stream> {
 public:
  // `read_next` asks for the next request; called while the reactor lives.
  Stream(std::shared_ptr<Link<StreamReactor>> link, std::function<void()> read_next)
      : link_(std::move(link)), read_next_(std::move(read_next)) {}

  void begin(const CallContext& context, const inference::ModelInferRequest& message);
  void requests_ended() {
    no_more_requests_ = true;
    finish_when_done();
  }
  void written() {
    writing_ = false;
    outgoing_.pop_front();
    write_next();
    if (busy()) return;
    for (auto& [id, sink] : std::map(sinks_))
      if (sink->ready) sink->ready();
    if (std::exchange(waits_to_read_, false)) read_more();
  }
  // A client that does not take its answers sends no more requests.
  void read_more() {
    waits_to_read_ = busy();
    if (!waits_to_read_) link_->use([&](StreamReactor&) { read_next_(); });
  }
  void cancel() {
    cancelled_ = true;
    for (auto& [id, cancel] : std::exchange(cancels_, {}))
      if (cancel) cancel();
    sinks_.clear();
  }

 private:
  friend class StreamSink;
  static constexpr size_t kMaxOutgoing = 64;

  bool busy() const { return outgoing_.size() >= kMaxOutgoing; }
  void send(inference::ModelStreamInferResponse message) {
    outgoing_.push_back(std::move(message));
    if (!writing_) write_next();
  }
  void write_next() {
    if (outgoing_.empty()) return finish_when_done();
    writing_ = true;
    link_->use([&](StreamReactor& reactor) { reactor.StartWrite(&outgoing_.front()); });
  }
  void forget(int64_t id) {
    sinks_.erase(id);
    cancels_.erase(id);
    finish_when_done();
  }
  void finish_when_done() {
    if (no_more_requests_ && sinks_.empty() && outgoing_.empty()) link_->finish(grpc::Status::OK);
  }

  std::shared_ptr<Link<StreamReactor>> link_;
  std::function<void()> read_next_;
  std::deque<inference::ModelStreamInferResponse> outgoing_;
  std::map<int64_t, std::shared_ptr<InferSink>> sinks_;  // of requests under way
  std::map<int64_t, std::function<void()>> cancels_;
  int64_t next_id_ = 0;
  bool writing_ = false, no_more_requests_ = false, waits_to_read_ = false, cancelled_ = false;
};

class StreamSink : public InferSink {
 public:
  StreamSink(std::shared_ptr<Stream> stream, int64_t id, InferRequest request)
      : stream_(std::move(stream)), id_(id), request_(std::move(request)) {}

  void respond(InferResponse response) override {
    inference::ModelStreamInferResponse message;
    to_message(response, request_, *message.mutable_infer_response());
    stream_->send(std::move(message));
  }
  void finish() override { stream_->forget(id_); }
  void fail(const Error& error) override {
    inference::ModelStreamInferResponse message;
    message.set_error_message(error.message);
    message.mutable_infer_response()->set_id(request_.id);
    stream_->send(std::move(message));
    stream_->forget(id_);
  }
  bool busy() const override { return stream_->busy(); }

 private:
  std::shared_ptr<Stream> stream_;
  int64_t id_;
  InferRequest request_;  // without its tensors
};

// One response only, unless the request's input `stream` is true: as Triton's backends of language models do.
bool wants_stream(const InferRequest& request) {
  const Tensor* stream = request.input("stream");
  if (!stream) return false;
  auto value = bool_of(*stream);
  return value && *value;
}

void Stream::begin(const CallContext& context, const inference::ModelInferRequest& message) {
  if (cancelled_) return;
  auto request = read(context, message);
  if (!request) {
    inference::ModelStreamInferResponse refusal;
    refusal.set_error_message(request.error().message);
    return send(std::move(refusal));
  }
  InferRequest head = *request;
  head.inputs.clear();
  int64_t id = next_id_++;
  auto sink = std::make_shared<StreamSink>(shared_from_this(), id, std::move(head));
  sinks_[id] = sink;
  bool stream = wants_stream(*request);
  auto cancel = context.backend.infer(std::move(*request), stream, sink);
  if (sinks_.contains(id)) cancels_[id] = std::move(cancel);
}

class StreamCall : public StreamReactor {
 public:
  explicit StreamCall(CallContext context) : context_(std::move(context)) { StartRead(&incoming_); }

 private:
  void OnReadDone(bool ok) override {
    auto link = link_;  // the reactor may be gone before finish() returns
    auto work = [stream = stream_, context = context_, message = incoming_, ok] {
      if (!ok) return stream->requests_ended();
      stream->begin(context, message);
      stream->read_more();
    };
    if (!context_.inbox->put(std::move(work))) link->finish(shutting_down());
  }
  void OnWriteDone(bool ok) override {
    if (ok) context_.inbox->put([stream = stream_] { stream->written(); });
  }
  void OnCancel() override {
    auto link = link_;
    context_.inbox->put([stream = stream_] { stream->cancel(); });
    link->finish(grpc::Status::CANCELLED);
  }
  void OnDone() override { delete this; }

  CallContext context_;
  inference::ModelInferRequest incoming_;
  std::shared_ptr<Link<StreamReactor>> link_ = std::make_shared<Link<StreamReactor>>(this);
  std::shared_ptr<Stream> stream_ = std::make_shared<Stream>(link_, [this] { StartRead(&incoming_); });
};

}  // namespace

grpc::ServerUnaryReactor* start_infer(CallContext context, const inference::ModelInferRequest* message,
                                      inference::ModelInferResponse* response) {
  auto* call = new UnaryCall;
  auto handle = call->handle();
  auto request = read(context, *message);
  if (!request) {
    handle->finish(to_grpc(request.error()));
    return call;
  }
  auto sink = std::make_shared<UnarySink>(handle, response);
  call->on_cancel([inbox = context.inbox, sink] { inbox->put([sink] { sink->cancel(); }); });
  bool taken = context.inbox->put(
      [sink, context, request = std::move(*request)] { UnarySink::begin(sink, context, request); });
  if (!taken) handle->finish(shutting_down());
  return call;
}

StreamReactor* start_stream(CallContext context) {
  return new StreamCall(std::move(context));
}

}  // namespace tessera::kserve
