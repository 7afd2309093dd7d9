// What orchestrators ask a server: is it alive, has it started, may it get requests.
//
//   /health/startup  200 once every model was loaded, or could not be
//   /health/live     503 when only a restart helps: an engine has failed, or its step has been stuck for too
//   long /health/ready    503 while a model loads, is lost or stuck, and while the server drains; also /health
// KServe's /v2/health/live and /v2/health/ready say the same.
// Threads: the server's.
#pragma once

#include "http/server.h"
#include "serve/model_directory.h"

namespace tessera::serve {

class Probes {
 public:
  // `stuck_s`: a step that takes longer is taken for dead.
  Probes(const ModelDirectory& models, const HttpServer& server, double stuck_s)
      : models_(models), server_(server), stuck_s_(stuck_s) {}

  static bool serves(const std::string& path) { return path == "/health" || path.starts_with("/health/"); }
  HttpResponse answer(const HttpRequest& request) const;

  // Why not; nothing when all is well.
  std::optional<std::string> not_live() const;
  std::optional<std::string> not_started() const;
  std::optional<std::string> not_ready() const;

 private:
  const ModelDirectory& models_;
  const HttpServer& server_;
  double stuck_s_;
};

}  // namespace tessera::serve
