// The HTTP face of an engine: OpenAI's completions, chat completions and models, health, and metrics.
//
//   POST /v1/completions   POST /v1/chat/completions   POST /tokenize   POST /detokenize
//   GET /v1/models   GET /v1/models/NAME   GET /health   GET /metrics
//
// A streamed answer has at most one write under way; tokens that come meanwhile go out together with the next
// one. A client that leaves cancels its requests at once. Templates, tokenizers and schemas can take long, so
// bodies are read by a few threads beside the server's.
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
  ~OpenAiApi();  // waits for bodies under way
  void handle(std::shared_ptr<HttpExchange> exchange);

 private:
  HttpResponse get(const HttpRequest& request) const;
  HttpResponse health(const HttpRequest& request) const;
  // Of the model, or of one of its adapters.
  std::string model_json(int64_t adapter = -1) const;
  void complete(std::shared_ptr<HttpExchange> exchange, bool chat);
  void convert(std::shared_ptr<HttpExchange> exchange, bool to_tokens);
  // Runs `read` on another thread and `answer` with its result on the server's, unless the client has left.
  template <class Read, class Then>
  void read_apart(std::shared_ptr<HttpExchange> exchange, Read read, Then answer);

  Engine& engine_;
  HttpServer& server_;
  data::TokenizerPtr tokenizer_;
  ServedName model_;
  int64_t created_;  // seconds since 1970
  struct Readers;
  std::unique_ptr<Readers> readers_;
};

}  // namespace tessera::serve
