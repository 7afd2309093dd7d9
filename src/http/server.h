// A small HTTP/1.1 server: one thread, callbacks, keep-alive, answers whole or as a stream, and word at once
// when a client leaves. It knows nothing of models.
//
// Threads: everything happens on the thread that is inside run(); only post() may be called from others.
#pragma once

#include <cstdint>
#include <memory>

#include "core/result.h"
#include "http/message.h"

namespace tessera {

struct HttpServerOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 0;                     // 0: any free one
  std::string tls_certificate, tls_key;  // PEM files; both empty: no TLS
  uint64_t max_body_bytes = 16 << 20;    // larger: 413
  double read_timeout_s = 60;            // for one request to arrive, and between two of one connection
  double write_timeout_s = 60;           // for a client to take what it is sent
  double drain_timeout_s = 300;          // after the first signal; then clients are cut off
};

class HttpServer {
 public:
  using Handler = std::function<void(std::shared_ptr<HttpExchange>)>;

  // Binds and listens. Errors: invalid_argument for a host that is no address; unavailable for a port in use;
  // those of load_tls().
  static Result<std::unique_ptr<HttpServer>> listen(const HttpServerOptions& options);
  virtual ~HttpServer() = default;
  virtual uint16_t port() const = 0;

  // Serves until drain() has finished. False when clients had to be cut off. SIGTERM and SIGINT drain; a second
  // one cuts off.
  virtual bool run(Handler handler) = 0;
  // Stops accepting, lets exchanges under way end, then run() returns. Who connected, or sent a request on an
  // open connection, before it could know is still served: for half a second requests are taken, the last ones
  // of their connections.
  virtual void drain() = 0;
  virtual bool draining() const = 0;
  virtual bool closed() const = 0;  // that half second is over
  // While what it returns lives, a drain has not finished: for work that came another way than over HTTP. To be
  // let go on the server's thread, or once run() has returned.
  virtual std::shared_ptr<void> hold() = 0;
  // Runs `work` on the server's thread. Any thread; nothing happens after run() has returned.
  virtual void post(std::function<void()> work) = 0;
};

}  // namespace tessera
