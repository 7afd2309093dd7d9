// The responses of one inference on their way to an HTTP client: one JSON body, or events of a stream.
// Threads: the server's.
#pragma once

#include "http/message.h"
#include "kserve/backend.h"

namespace tessera::kserve {

class RestSink : public InferSink, public std::enable_shared_from_this<RestSink> {
 public:
  // `generate`: in the form of the generate extension.
  static std::shared_ptr<RestSink> make(std::shared_ptr<HttpExchange> exchange, InferRequest request,
                                        bool generate, bool stream);

  // Called when the client leaves before the end.
  void on_cancel(std::function<void()> cancel);

  void respond(InferResponse response) override;
  void finish() override;
  void fail(const Error& error) override;
  bool busy() const override { return writing_; }

 private:
  RestSink(std::shared_ptr<HttpExchange> exchange, InferRequest request, bool generate, bool stream)
      : exchange_(std::move(exchange)), request_(std::move(request)), generate_(generate), stream_(stream) {}
  void send_event(const std::string& event);
  void end();

  std::shared_ptr<HttpExchange> exchange_;
  InferRequest request_;  // without its tensors
  bool generate_, stream_, begun_ = false, writing_ = false, ended_ = false;
  std::optional<InferResponse> whole_;
};

}  // namespace tessera::kserve
