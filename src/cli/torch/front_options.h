// Options of a server's HTTP front: where it listens, TLS, and who may call.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "http/http.h"

namespace tessera::cli {

struct FrontFlags {
  HttpServerOptions http{.port = 8000};
  std::string api_keys;

  void add_to(CLI::App& command);
  // Bound, with its certificate read, so that what is wrong is known before a model is loaded.
  Result<std::unique_ptr<HttpServer>> listen() const;
  // What the server runs for each request: `handler` behind the check of keys when there are any.
  Result<HttpServer::Handler> guarded(HttpServer::Handler handler) const;
  std::string url(const HttpServer& server) const;
};

}  // namespace tessera::cli
