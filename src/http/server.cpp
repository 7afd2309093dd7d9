#include "http/server.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <csignal>
#include <set>

#include "core/log.h"
#include "http/session.h"
#include "http/tls.h"

namespace tessera {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

constexpr auto kSweep = std::chrono::milliseconds(250);  // how often connections are looked at
constexpr auto kAcceptPause = std::chrono::milliseconds(100);
constexpr double kLingerSeconds = 0.5;  // of open doors after a drain has begun

class Server : public HttpServer, public SessionHost {
 public:
  explicit Server(const HttpServerOptions& options) : options_(options) {}
  Status open();
  uint16_t port() const override { return acceptor_.local_endpoint().port(); }
  bool run(Handler handler) override;
  void drain() override;
  bool draining() const override { return draining_; }
  bool closed() const override { return closed_; }
  std::shared_ptr<void> hold() override;
  void post(std::function<void()> work) override { asio::post(context_, std::move(work)); }

  const HttpServerOptions& options() const override { return options_; }
  void handle(std::shared_ptr<HttpExchange> exchange) override { handler_(std::move(exchange)); }
  void forget(Session* session) override;

 private:
  void accept();
  void on_accepted(error_code error, tcp::socket socket);
  void await_signal();
  void sweep();
  void close_doors();
  void cut_off();
  void stop_when_drained();

  HttpServerOptions options_;
  asio::io_context context_{1};
  std::unique_ptr<asio::ssl::context> tls_;
  tcp::acceptor acceptor_{context_};
  asio::signal_set signals_{context_};
  asio::steady_timer pause_{context_}, sweep_{context_};
  Handler handler_;
  std::set<Session*> sessions_;
  Deadline drained_by_{Clock::time_point::max()}, closes_at_{Clock::time_point::max()};
  std::shared_ptr<int64_t> holds_ = std::make_shared<int64_t>(0);
  bool draining_ = false, closed_ = false, cut_off_ = false;
};

Status Server::open() {
  if (!options_.tls_certificate.empty() || !options_.tls_key.empty()) {
    TESSERA_ASSIGN_OR_RETURN(tls_, load_tls(options_.tls_certificate, options_.tls_key));
  }
  error_code error;
  auto address = asio::ip::make_address(options_.host == "localhost" ? "127.0.0.1" : options_.host, error);
  if (error)
    return invalid("--host '{}' is no IP address; use 127.0.0.1 or, for all interfaces, 0.0.0.0",
                   options_.host);
  tcp::endpoint endpoint(address, options_.port);
  acceptor_.open(endpoint.protocol(), error);
  if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor_.bind(endpoint, error);
  if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
  if (!error) return {};
  return make_error(ErrorCode::unavailable, "cannot listen on {}:{}: {}{}", options_.host, options_.port,
                    error.message(),
                    error == asio::error::address_in_use ? "; give another --port, or 0 for any free one" : "");
}

bool Server::run(Handler handler) {
  handler_ = std::move(handler);
  error_code ignored;
  signals_.add(SIGTERM, ignored);
  signals_.add(SIGINT, ignored);
  await_signal();
  sweep();
  accept();
  context_.run();
  return !cut_off_;
}

void Server::accept() {
  acceptor_.async_accept(
      [this](error_code error, tcp::socket socket) { on_accepted(error, std::move(socket)); });
}

void Server::on_accepted(error_code error, tcp::socket socket) {
  if (closed_) return;
  if (error) {
    // Out of file descriptors, most likely: give the others time to end.
    log(LogLevel::warn, "cannot accept a connection: {}", error.message());
    pause_.expires_after(kAcceptPause);
    return pause_.async_wait([this](error_code cancelled) {
      if (!cancelled && !closed_) accept();
    });
  }
  error_code ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  auto session =
      tls_ ? make_tls_session(*this, std::move(socket), *tls_) : make_session(*this, std::move(socket));
  sessions_.insert(session.get());
  session->start();
  accept();
}

void Server::await_signal() {
  signals_.async_wait([this](error_code error, int) {
    if (error) return;
    draining_ ? cut_off() : drain();
    await_signal();
  });
}

void Server::sweep() {
  auto now = Clock::now();
  for (Session* session : std::set<Session*>(sessions_)) session->expire(now);
  if (now > drained_by_.at) return cut_off();
  if (now > closes_at_.at && !closed_) close_doors();
  sweep_.expires_after(kSweep);
  sweep_.async_wait([this](error_code cancelled) {
    if (!cancelled) sweep();
  });
}

void Server::drain() {
  if (draining_) return;
  draining_ = true;
  closes_at_ = Deadline::after(kLingerSeconds);
  drained_by_ = Deadline::after(options_.drain_timeout_s);
}

void Server::close_doors() {
  closed_ = true;
  error_code ignored;
  acceptor_.close(ignored);
  for (Session* session : std::set<Session*>(sessions_))
    if (session->idle()) session->close();
  stop_when_drained();
}

void Server::cut_off() {
  cut_off_ = true;
  context_.stop();
}

void Server::forget(Session* session) {
  sessions_.erase(session);
  stop_when_drained();
}

void Server::stop_when_drained() {
  if (closed_ && sessions_.empty() && *holds_ == 0) context_.stop();
}

std::shared_ptr<void> Server::hold() {
  ++*holds_;
  return {this, [holds = std::weak_ptr(holds_)](Server* server) {
            auto alive = holds.lock();
            if (!alive) return;
            --*alive;
            server->stop_when_drained();
          }};
}

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::listen(const HttpServerOptions& options) {
  auto server = std::make_unique<Server>(options);
  TESSERA_RETURN_IF_ERROR(server->open());
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace tessera
