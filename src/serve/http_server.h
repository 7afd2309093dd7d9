// A small HTTP/1.1 server: one thread, callbacks, keep-alive, answers whole or as a stream, and word at once
// when a client leaves. It knows nothing of models.
//
// Threads: everything happens on the thread that is inside run(); only post() may be called from others.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/result.h"

namespace tessera::serve {

struct HttpRequest {
  std::string method, path, body;  // path without the query
};

struct HttpResponse {
  int status = 200;
  std::string body, content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers = {};
};

// One request and its answer: either respond() once, or begin_stream(), write()..., end_stream(). Calls after
// the client has left do nothing.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
  virtual const HttpRequest& request() const = 0;
  virtual void respond(const HttpResponse& response) = 0;

  virtual void begin_stream(const HttpResponse& head) = 0;  // without its body
  // Written one after the other. on_written follows when all of it is with the system: who waits for it never
  // piles up data for a slow client.
  virtual void write(const std::string& data) = 0;
  virtual void end_stream() = 0;

  std::function<void()> on_written;
  std::function<void()> on_disconnect;  // at most once; nothing follows
};

struct HttpServerOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 0;                   // 0: any free one
  uint64_t max_body_bytes = 16 << 20;  // larger: 413
  double read_timeout_s = 60;          // for one request to arrive, and between two of one connection
  double write_timeout_s = 60;         // for a client to take what it is sent
  double drain_timeout_s = 300;        // after the first signal; then clients are cut off
};

class HttpServer {
 public:
  using Handler = std::function<void(std::shared_ptr<HttpExchange>)>;

  // Binds and listens. Errors: invalid_argument for a host that is no address; unavailable for a port in use.
  static Result<std::unique_ptr<HttpServer>> listen(const HttpServerOptions& options);
  virtual ~HttpServer() = default;
  virtual uint16_t port() const = 0;

  // Serves until drain() has finished. False when clients had to be cut off. SIGTERM and SIGINT drain; a second
  // one cuts off.
  virtual bool run(Handler handler) = 0;
  // Stops accepting, lets exchanges under way end, then run() returns.
  virtual void drain() = 0;
  // Runs `work` on the server's thread. Any thread; nothing happens after run() has returned.
  virtual void post(std::function<void()> work) = 0;
};

}  // namespace tessera::serve
