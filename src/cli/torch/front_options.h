// Options of a server's HTTP front: where it listens, TLS, and who may call.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "http/http.h"
#include "kserve_grpc/grpc_server.h"

namespace tessera::cli {

struct FrontFlags {
  HttpServerOptions http{.port = 8000};
  std::string api_keys;
  std::optional<uint16_t> grpc_port;

  void add_to(CLI::App& command);
  void add_grpc_to(CLI::App& command);  // for servers that answer gRPC too
  // Bound, with its certificate read, so that what is wrong is known before a model is loaded.
  Result<std::unique_ptr<HttpServer>> listen() const;
  // Null when everyone may call.
  Result<std::shared_ptr<const ApiKeys>> load_keys() const;
  // What the server runs for each request: `handler` behind the check of keys when there are any.
  static HttpServer::Handler guarded(HttpServer::Handler handler, const std::shared_ptr<const ApiKeys>& keys);
  Result<HttpServer::Handler> guarded(HttpServer::Handler handler) const;  // by the keys of load_keys()
  // KServe's gRPC beside it; null when none is asked for. Errors: a port in use; a build without gRPC.
  Result<std::unique_ptr<kserve::GrpcServer>> start_grpc(kserve::Backend& backend, HttpServer& server,
                                                         std::shared_ptr<const ApiKeys> keys) const;
  std::string url(const HttpServer& server) const;
};

}  // namespace tessera::cli
