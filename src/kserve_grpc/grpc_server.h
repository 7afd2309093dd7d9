// KServe's protocol over gRPC, as tritonclient.grpc speaks it (kserve.proto). Calls come on gRPC's threads and
// are handed to the thread of the HTTP server, where the backend lives.
//
// Threads: as said at each function.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "core/result.h"
#include "http/api_keys.h"
#include "kserve/backend.h"

namespace tessera::kserve {

struct GrpcServerOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 0;                                // 0: any free one
  std::string tls_certificate, tls_key;             // PEM files; both empty: no TLS
  std::string version;                              // of the server, for its metadata
  std::shared_ptr<const ApiKeys> keys;              // null: everyone may call
  std::function<void(std::function<void()>)> post;  // runs work on the backend's thread; any thread
};

class GrpcServer {
 public:
  // Listens and answers at once. The backend must outlive it. Errors: unavailable for a port in use or a file
  // that is no certificate.
  static Result<std::unique_ptr<GrpcServer>> start(Backend& backend, GrpcServerOptions options);
  virtual ~GrpcServer() = default;  // ends all calls; what the backend still runs must have ended before
  virtual uint16_t port() const = 0;
};

}  // namespace tessera::kserve
