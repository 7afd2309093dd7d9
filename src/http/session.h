// One connection of the server: reads requests one after the other and sends their answers. Internal to http.
//
// While a request is being answered a read stays pending: it ends when the client leaves. There are no timers
// per connection; the server calls expire() on all of them a few times a second.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <memory>
#include <utility>  // Asio 1.74 needs it and does not include it

#include "core/clock.h"
#include "http/server.h"

namespace boost::asio::ssl {
class context;
}

namespace tessera {

class Session;

// What a connection needs of its server.
class SessionHost {
 public:
  virtual ~SessionHost() = default;
  virtual const HttpServerOptions& options() const = 0;
  virtual bool draining() const = 0;  // connections end with the answer under way
  virtual bool closed() const = 0;    // and those without one have ended
  virtual void handle(std::shared_ptr<HttpExchange> exchange) = 0;
  virtual void forget(Session* session) = 0;  // it has closed
};

class Session : public std::enable_shared_from_this<Session> {
 public:
  virtual ~Session() = default;
  virtual void start() = 0;
  virtual void close() = 0;
  virtual bool idle() const = 0;                   // answers nothing
  virtual void expire(Clock::time_point now) = 0;  // cuts off a client that took too long
};

std::shared_ptr<Session> make_session(SessionHost& host, boost::asio::ip::tcp::socket socket);
std::shared_ptr<Session> make_tls_session(SessionHost& host, boost::asio::ip::tcp::socket socket,
                                          boost::asio::ssl::context& tls);

}  // namespace tessera
