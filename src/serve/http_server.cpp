#include "serve/http_server.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <csignal>
#include <deque>
#include <optional>
#include <set>
#include <utility>  // Asio 1.74 needs it and does not include it

#include "core/log.h"

namespace tessera::serve {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

constexpr size_t kMaxPipelinedBytes = 1 << 20;

std::chrono::steady_clock::duration duration_of(double seconds) {
  return std::chrono::duration_cast<std::chrono::steady_clock::duration>(
      std::chrono::duration<double>(seconds));
}

std::string head_of(const HttpResponse& response, bool keep_alive) {
  auto reason = http::obsolete_reason(http::int_to_status(static_cast<unsigned>(response.status)));
  std::string head = fmt::format("HTTP/1.1 {} {}\r\nContent-Type: {}\r\n", response.status,
                                 std::string_view(reason.data(), reason.size()), response.content_type);
  for (const auto& [name, value] : response.headers) head += fmt::format("{}: {}\r\n", name, value);
  return head + (keep_alive ? "Connection: keep-alive\r\n" : "Connection: close\r\n");
}

std::string chunk(const std::string& data) {
  return fmt::format("{:x}\r\n{}\r\n", data.size(), data);
}

class Server;

// One connection. While a request is being answered a read stays pending: it ends when the client leaves.
class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(Server& server, tcp::socket socket);
  void start() { read_request(); }
  void close();
  bool idle() const { return !exchange_ && outgoing_.empty(); }

 private:
  friend class Exchange;
  using Parser = http::request_parser<http::string_body>;

  void read_request();
  void on_header(error_code error);
  void read_body();
  void on_request(error_code error);
  void refuse(const error_code& error);
  void watch();
  void on_watched(error_code error, size_t bytes);
  void send(std::string data);
  void write_next();
  void on_sent(error_code error);
  void finish_exchange();
  void after_exchange();
  void client_left();

  Server& server_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  std::optional<Parser> parser_;
  std::shared_ptr<class Exchange> exchange_;
  std::deque<std::string> outgoing_;
  bool watching_ = false, keep_alive_ = true, finishing_ = false, closed_ = false;
};

class Exchange : public HttpExchange {
 public:
  Exchange(std::shared_ptr<Session> session, HttpRequest request, bool chunked)
      : session_(std::move(session)), request_(std::move(request)), chunked_(chunked) {}

  const HttpRequest& request() const override { return request_; }

  void respond(const HttpResponse& response) override {
    if (!session_) return;
    std::string head = head_of(response, session_->keep_alive_);
    session_->send(fmt::format("{}Content-Length: {}\r\n\r\n{}", head, response.body.size(), response.body));
    std::exchange(session_, nullptr)->finish_exchange();
  }

  void begin_stream(const HttpResponse& response) override {
    if (!session_) return;
    if (!chunked_) session_->keep_alive_ = false;
    std::string head = head_of(response, session_->keep_alive_);
    head += "Cache-Control: no-cache\r\n";
    session_->send(head + (chunked_ ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n"));
  }

  void write(const std::string& data) override {
    if (session_ && !data.empty()) session_->send(chunked_ ? chunk(data) : data);
  }

  void end_stream() override {
    if (!session_) return;
    if (chunked_) session_->send("0\r\n\r\n");
    std::exchange(session_, nullptr)->finish_exchange();
  }

  void client_left() {
    session_ = nullptr;
    on_written = nullptr;
    if (auto tell = std::exchange(on_disconnect, nullptr)) tell();
  }
  void written() {
    // A copy: the callback may end the exchange and with it itself.
    if (auto tell = on_written; tell && session_) tell();
  }

 private:
  std::shared_ptr<Session> session_;
  HttpRequest request_;
  bool chunked_;
};

class Server : public HttpServer {
 public:
  explicit Server(const HttpServerOptions& options) : options_(options) {}
  Status open();
  uint16_t port() const override { return acceptor_.local_endpoint().port(); }
  bool run(Handler handler) override;
  void drain() override;
  void post(std::function<void()> work) override { asio::post(context_, std::move(work)); }

  const HttpServerOptions& options() const { return options_; }
  bool draining() const { return draining_; }
  void handle(std::shared_ptr<HttpExchange> exchange) { handler_(std::move(exchange)); }
  void forget(Session* session);

 private:
  void accept();
  void on_accepted(error_code error, tcp::socket socket);
  void await_signal();
  void cut_off();

  HttpServerOptions options_;
  asio::io_context context_{1};
  tcp::acceptor acceptor_{context_};
  asio::signal_set signals_{context_};
  asio::steady_timer timer_{context_};
  Handler handler_;
  std::set<Session*> sessions_;
  bool draining_ = false, cut_off_ = false;
};

Session::Session(Server& server, tcp::socket socket) : server_(server), stream_(std::move(socket)) {
  error_code ignored;
  stream_.socket().set_option(tcp::no_delay(true), ignored);
}

void Session::close() {
  if (closed_) return;
  closed_ = true;
  error_code ignored;
  stream_.socket().shutdown(tcp::socket::shutdown_both, ignored);
  stream_.close();
  server_.forget(this);
}

void Session::read_request() {
  if (server_.draining()) return close();
  parser_.emplace();
  parser_->body_limit(server_.options().max_body_bytes);
  stream_.expires_after(duration_of(server_.options().read_timeout_s));
  http::async_read_header(stream_, buffer_, *parser_,
                          [self = shared_from_this()](error_code error, size_t) { self->on_header(error); });
}

void Session::on_header(error_code error) {
  if (error) return refuse(error);
  if (!beast::iequals(parser_->get()[http::field::expect], "100-continue")) return read_body();
  auto go_on = std::make_shared<std::string>("HTTP/1.1 100 Continue\r\n\r\n");
  asio::async_write(stream_, asio::buffer(*go_on),
                    [self = shared_from_this(), go_on](error_code failed, size_t) {
                      failed ? self->close() : self->read_body();
                    });
}

void Session::read_body() {
  http::async_read(stream_, buffer_, *parser_,
                   [self = shared_from_this()](error_code error, size_t) { self->on_request(error); });
}

void Session::on_request(error_code error) {
  if (error) return refuse(error);
  auto message = parser_->release();
  keep_alive_ = message.keep_alive() && !server_.draining();
  auto target = std::string_view(message.target().data(), message.target().size());
  HttpRequest request{.method = std::string(message.method_string()),
                      .path = std::string(target.substr(0, target.find('?'))),
                      .body = std::move(message.body())};
  exchange_ = std::make_shared<Exchange>(shared_from_this(), std::move(request), message.version() >= 11);
  watch();
  server_.handle(exchange_);
}

// What is no HTTP, or too large, gets one answer and the connection ends.
void Session::refuse(const error_code& error) {
  bool http_error = error.category() == http::make_error_code(http::error::bad_method).category();
  if (!http_error || error == http::error::end_of_stream || error == http::error::partial_message)
    return close();
  bool large = error == http::error::body_limit || error == http::error::header_limit;
  auto text = fmt::format(
      "{}", large ? fmt::format("the request is larger than {} bytes", server_.options().max_body_bytes)
                  : "the request is no valid HTTP: " + error.message());
  HttpResponse response{.status = large ? 413 : 400};
  response.body = fmt::format(
      R"({{"error":{{"message":"{}","type":"invalid_request_error","param":null,"code":null}}}})", text);
  keep_alive_ = false;
  finishing_ = true;
  send(fmt::format("{}Content-Length: {}\r\n\r\n{}", head_of(response, false), response.body.size(),
                   response.body));
}

void Session::watch() {
  if (watching_ || buffer_.size() >= kMaxPipelinedBytes) return;
  watching_ = true;
  stream_.expires_never();
  stream_.async_read_some(buffer_.prepare(4096), [self = shared_from_this()](error_code error, size_t bytes) {
    self->on_watched(error, bytes);
  });
}

void Session::on_watched(error_code error, size_t bytes) {
  watching_ = false;
  buffer_.commit(bytes);
  if (closed_) return;
  if (!exchange_) return after_exchange();
  if (error) return client_left();
  watch();
}

void Session::client_left() {
  auto exchange = std::exchange(exchange_, nullptr);
  close();
  if (exchange) exchange->client_left();
}

void Session::send(std::string data) {
  outgoing_.push_back(std::move(data));
  if (outgoing_.size() == 1) write_next();
}

void Session::write_next() {
  stream_.expires_after(duration_of(server_.options().write_timeout_s));
  asio::async_write(stream_, asio::buffer(outgoing_.front()),
                    [self = shared_from_this()](error_code error, size_t) { self->on_sent(error); });
}

void Session::on_sent(error_code error) {
  if (closed_) return;
  if (error) return client_left();
  outgoing_.pop_front();
  if (!outgoing_.empty()) return write_next();
  if (finishing_) return after_exchange();
  if (auto exchange = exchange_) exchange->written();
}

void Session::finish_exchange() {
  finishing_ = true;
  exchange_ = nullptr;
  if (outgoing_.empty()) after_exchange();
}

// The answer is out. A read may still be pending; it must end before the next request is parsed.
void Session::after_exchange() {
  if (!outgoing_.empty() || closed_) return;
  if (!keep_alive_) return close();
  if (watching_) return stream_.cancel();
  finishing_ = false;
  read_request();
}

Status Server::open() {
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
  accept();
  context_.run();
  return !cut_off_;
}

void Server::accept() {
  acceptor_.async_accept(
      [this](error_code error, tcp::socket socket) { on_accepted(error, std::move(socket)); });
}

void Server::on_accepted(error_code error, tcp::socket socket) {
  if (draining_) return;
  if (error) {
    // Out of file descriptors, most likely: give the others time to end.
    log(LogLevel::warn, "cannot accept a connection: {}", error.message());
    timer_.expires_after(std::chrono::milliseconds(100));
    return timer_.async_wait([this](error_code cancelled) {
      if (!cancelled) accept();
    });
  }
  auto session = std::make_shared<Session>(*this, std::move(socket));
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

void Server::drain() {
  if (draining_) return;
  draining_ = true;
  error_code ignored;
  acceptor_.close(ignored);
  for (Session* session : std::set<Session*>(sessions_))
    if (session->idle()) session->close();
  timer_.expires_after(duration_of(options_.drain_timeout_s));
  timer_.async_wait([this](error_code cancelled) {
    if (!cancelled) cut_off();
  });
  if (sessions_.empty()) context_.stop();
}

void Server::cut_off() {
  cut_off_ = true;
  context_.stop();
}

void Server::forget(Session* session) {
  sessions_.erase(session);
  if (draining_ && sessions_.empty()) context_.stop();
}

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::listen(const HttpServerOptions& options) {
  auto server = std::make_unique<Server>(options);
  TESSERA_RETURN_IF_ERROR(server->open());
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace tessera::serve
