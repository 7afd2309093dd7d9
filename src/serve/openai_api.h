// OpenAI's interface of the models of a server: completions, chat completions, and what there is.
//
//   POST /v1/completions   POST /v1/chat/completions   POST /tokenize   POST /detokenize
//   GET /v1/models   GET /v1/models/NAME
//
// A streamed answer has at most one write under way; tokens that come meanwhile go out together with the next
// one. A client that leaves cancels its requests at once. Threads: the server's.
#pragma once

#include "http/server.h"
#include "serve/body_readers.h"
#include "serve/model_directory.h"

namespace tessera::serve {

class OpenAiApi {
 public:
  // All must outlive the API.
  OpenAiApi(ModelDirectory& models, HttpServer& server, BodyReaders& readers)
      : models_(models), server_(server), readers_(readers) {}

  static bool serves(const std::string& path);
  void handle(std::shared_ptr<HttpExchange> exchange);

 private:
  HttpResponse about_models(const HttpRequest& request) const;
  void find_model(std::shared_ptr<HttpExchange> exchange);
  void run(std::shared_ptr<HttpExchange> exchange, const std::string& name);
  void complete(std::shared_ptr<HttpExchange> exchange, HostedModelPtr model);
  void convert(std::shared_ptr<HttpExchange> exchange, HostedModelPtr model);
  // Runs `read` on another thread and `answer` with its result on the server's, unless the client has left.
  template <class Read, class Then>
  void read_apart(std::shared_ptr<HttpExchange> exchange, Read read, Then answer);

  ModelDirectory& models_;
  HttpServer& server_;
  BodyReaders& readers_;
};

}  // namespace tessera::serve
