// The HTTP face of an embedding engine: OpenAI's embeddings and models, health, and metrics.
//
//   POST /v1/embeddings   GET /v1/models   GET /v1/models/NAME   GET /health   GET /metrics
//
//   {"model": M, "input": TEXT | [TEXT, ...] | [ID, ...] | [[ID, ...], ...], "encoding_format": "float" |
//   "base64",
//    "dimensions": N, "user": U}
//     -> {"object": "list", "data": [{"object": "embedding", "index": I, "embedding": ...}], "model": M,
//         "usage": {"prompt_tokens": T, "total_tokens": T}}
//
// base64 holds float32 values, little endian. Bodies are read on the server's thread. Threads: the server's.
#pragma once

#include "http/server.h"
#include "serve/embedding_engine.h"
#include "serve/openai_request.h"

namespace tessera::serve {

// A body, checked: what is known before anything is computed.
struct EmbeddingCall {
  std::vector<std::vector<int64_t>> sequences;
  int64_t dimensions = 0;
  bool base64 = false;
  std::string user;
  int64_t tokens() const;
};
std::variant<EmbeddingCall, ApiError> parse_embedding_call(std::string_view body,
                                                           const data::Tokenizer& tokenizer,
                                                           const ServedName& model);

class EmbeddingApi {
 public:
  // All must outlive the API; destroy the engine before the server.
  EmbeddingApi(EmbeddingEngine& engine, HttpServer& server, data::TokenizerPtr tokenizer, std::string name);
  void handle(std::shared_ptr<HttpExchange> exchange);

 private:
  HttpResponse get(const HttpRequest& request) const;
  void embed(std::shared_ptr<HttpExchange> exchange);
  std::string model_json() const;
  std::string metrics() const;

  EmbeddingEngine& engine_;
  HttpServer& server_;
  data::TokenizerPtr tokenizer_;
  ServedName model_;
  int64_t created_;  // seconds since 1970
};

}  // namespace tessera::serve
