// The HTTP face of an engine: OpenAI's completions, chat completions and models, health, and metrics.
//
//   POST /v1/completions   POST /v1/chat/completions
//   GET /v1/models   GET /v1/models/NAME   GET /health   GET /metrics
//
// A streamed answer has at most one write under way; tokens that come meanwhile go out together with the next
// one. A client that leaves cancels its requests at once.
// Threads: handle() on the server's thread.
#pragma once

#include "http/server.h"
#include "serve/engine.h"
#include "serve/openai_request.h"

namespace tessera::serve {

class OpenAiApi {
 public:
  // All must outlive the API; destroy the engine before the server.
  OpenAiApi(Engine& engine, HttpServer& server, data::TokenizerPtr tokenizer, ServedName model);
  void handle(std::shared_ptr<HttpExchange> exchange);

 private:
  HttpResponse get(const HttpRequest& request) const;
  HttpResponse health(const HttpRequest& request) const;
  std::string model_json() const;
  void complete(std::shared_ptr<HttpExchange> exchange, bool chat);

  Engine& engine_;
  HttpServer& server_;
  data::TokenizerPtr tokenizer_;
  ServedName model_;
  int64_t created_;  // seconds since 1970
};

}  // namespace tessera::serve
