// KServe's protocol over HTTP, as tritonclient.http speaks it:
//
//   GET  /v2   /v2/health/{live,ready}   /v2/models/NAME[/versions/1][/ready|/config|/stats]   /v2/models/stats
//   POST /v2/models/NAME[/versions/1]/{infer,generate,generate_stream}
//   POST /v2/repository/index   /v2/repository/models/NAME/{load,unload}
//
// Threads: the server's.
#pragma once

#include "http/message.h"
#include "kserve/backend.h"

namespace tessera::kserve {

class Rest {
 public:
  // Runs `read` where a heavy body holds up nobody, and `then` behind it on the server's thread.
  using Apart = std::function<void(std::function<void()> read, std::function<void()> then)>;
  // `version`: of the server, for its metadata. The backend must outlive this.
  Rest(Backend& backend, std::string version, Apart apart)
      : backend_(backend), version_(std::move(version)), apart_(std::move(apart)) {}

  static bool serves(const std::string& path) { return path == "/v2" || path.starts_with("/v2/"); }
  // REQUIRES: serves() of the request's path.
  void handle(std::shared_ptr<HttpExchange> exchange);

 private:
  struct ModelPath {
    std::string name, action;  // action: "" for the metadata
  };
  Result<ModelPath> model_path(const std::string& path) const;
  Result<HttpResponse> answer(const HttpRequest& request) const;
  Result<HttpResponse> about_model(const HttpRequest& request) const;
  void infer(std::shared_ptr<HttpExchange> exchange, const ModelPath& path);
  void start(std::shared_ptr<HttpExchange> exchange, const ModelPath& path, Result<InferRequest> request);
  void change_repository(std::shared_ptr<HttpExchange> exchange);

  Backend& backend_;
  std::string version_;
  Apart apart_;
};

// 400, 404, 429, 501, 503 or 500.
int status_of(const Error& error);

}  // namespace tessera::kserve
