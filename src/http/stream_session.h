// The session over any kind of stream: a plain socket or one under TLS. Internal to http; included by the file
// of each kind, so that they compile apart.
#pragma once

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <deque>
#include <optional>

#include "http/session.h"
#include "http/wire.h"

namespace tessera {

using boost::system::error_code;

template <class Stream>
class StreamSession : public Session {
 public:
  template <class... Args>
  explicit StreamSession(SessionHost& host, Args&&... args)
      : host_(host), stream_(std::forward<Args>(args)...) {}

  void start() override { next_request(); }
  bool idle() const override { return !exchange_ && outgoing_.empty(); }

  void close() override {
    if (closed_) return;
    closed_ = true;
    error_code ignored;
    auto& socket = stream_.lowest_layer();
    socket.shutdown(boost::asio::socket_base::shutdown_both, ignored);
    socket.close(ignored);
    host_.forget(this);
  }

  void expire(Clock::time_point now) override {
    bool late = outgoing_.empty() ? !exchange_ && now > read_by_ : now > write_by_;
    if (late) client_left();
  }

 protected:
  static constexpr size_t kMaxPipelinedBytes = 1 << 20;
  static constexpr double kLingerSeconds = 2;

  Stream& stream() { return stream_; }
  bool closed() const { return closed_; }
  auto self() { return std::static_pointer_cast<StreamSession>(shared_from_this()); }
  // Nothing more will be sent. True when the session shall read on until the client closes.
  virtual bool end_sending() {
    error_code ignored;
    stream_.lowest_layer().shutdown(boost::asio::socket_base::shutdown_send, ignored);
    return true;
  }
  void await_reading() { read_by_ = Deadline::after(host_.options().read_timeout_s).at; }

  // The end of an answer, or of a greeting: what the client sent meanwhile begins its next request.
  void next_request() {
    if (host_.closed()) return close();
    finishing_ = false;
    parser_.emplace();
    parser_->body_limit(host_.options().max_body_bytes);
    parser_->eager(true);
    told_to_continue_ = false;
    await_reading();
    parse();
  }

 private:
  class Exchange;
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;

  // Reads at all times, so that a client that leaves is noticed; but not more than it may send ahead.
  void read_more() {
    if (reading_ || closed_ || unread_.size() >= kMaxPipelinedBytes) return;
    reading_ = true;
    stream_.async_read_some(boost::asio::buffer(chunk_),
                            [self = self()](error_code error, size_t bytes) { self->on_read(error, bytes); });
  }

  void on_read(error_code error, size_t bytes) {
    reading_ = false;
    if (closed_) return;
    if (lingering_) {
      return error ? close() : read_more();
    }
    unread_.append(chunk_.data(), bytes);
    if (error) return on_read_end();
    exchange_ || finishing_ ? read_more() : parse();
  }

  void on_read_end() {
    if (exchange_ || outgoing_.empty()) return client_left();
    keep_alive_ = false;  // it sends no more, but may still read
  }

  void parse() {
    error_code error;
    while (!unread_.empty() && !parser_->is_done()) {
      size_t used = parser_->put(boost::asio::const_buffer(unread_.data(), unread_.size()), error);
      unread_.erase(0, used);
      if (error == boost::beast::http::error::need_more) break;
      if (error) return refuse(error);
      if (used == 0) break;
    }
    if (parser_->is_done()) return on_request();
    if (parser_->is_header_done() && !told_to_continue_ && wire::wants_continue(parser_->get())) {
      told_to_continue_ = true;
      send("HTTP/1.1 100 Continue\r\n\r\n");
    }
    read_more();
  }

  void on_request();

  // What is no HTTP, or too large, gets one answer and the connection ends.
  void refuse(const error_code& error) {
    auto response = wire::refusal(error, host_.options().max_body_bytes);
    if (closed_ || !response) return close();
    keep_alive_ = false;
    finishing_ = true;
    send(wire::whole(*response, {}, false));
  }

  void client_left();

  void send(std::string data) {
    outgoing_.push_back(std::move(data));
    if (outgoing_.size() == 1) write_next();
  }

  void write_next() {
    write_by_ = Deadline::after(host_.options().write_timeout_s).at;
    boost::asio::async_write(stream_, boost::asio::buffer(outgoing_.front()),
                             [self = self()](error_code error, size_t) { self->on_sent(error); });
  }

  void on_sent(error_code error);

  void finish_exchange() {
    finishing_ = true;
    exchange_ = nullptr;
    await_reading();
    if (outgoing_.empty()) after_exchange();
  }

  void after_exchange() {
    if (!outgoing_.empty() || closed_) return;
    keep_alive_ ? next_request() : linger();
  }

  // Closing while the client still sends would take the answer away from it: the rest is read for a while.
  void linger() {
    if (lingering_) return;
    lingering_ = true;
    unread_.clear();
    read_by_ = Deadline::after(kLingerSeconds).at;
    if (end_sending()) read_more();
  }

  SessionHost& host_;
  Stream stream_;
  std::array<char, 4096> chunk_;
  std::string unread_;  // what came and was not parsed yet
  std::optional<Parser> parser_;
  std::shared_ptr<Exchange> exchange_;
  std::deque<std::string> outgoing_;
  Clock::time_point read_by_{}, write_by_{};
  bool reading_ = false, told_to_continue_ = false, keep_alive_ = true, finishing_ = false, lingering_ = false,
       closed_ = false;
};

template <class Stream>
class StreamSession<Stream>::Exchange : public HttpExchange {
 public:
  // `head_only`: what answers a GET, without its body.
  Exchange(std::shared_ptr<StreamSession> session, HttpRequest request, bool chunked, bool head_only)
      : HttpExchange(std::move(request)),
        session_(std::move(session)),
        chunked_(chunked),
        head_only_(head_only) {}

  void respond(const HttpResponse& response) override {
    if (!session_) return;
    auto bytes = head_only_ ? wire::head_of_whole : wire::whole;
    session_->send(bytes(response, extra_headers(), session_->keep_alive_));
    std::exchange(session_, nullptr)->finish_exchange();
  }

  void begin_stream(const HttpResponse& head) override {
    if (!session_) return;
    if (!chunked_) session_->keep_alive_ = false;
    session_->send(wire::stream_head(head, extra_headers(), session_->keep_alive_, chunked_));
  }

  void write(const std::string& data) override {
    if (session_ && !data.empty() && !head_only_) session_->send(chunked_ ? wire::chunk(data) : data);
  }

  void end_stream() override {
    if (!session_) return;
    if (chunked_ && !head_only_) session_->send("0\r\n\r\n");
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
  std::shared_ptr<StreamSession> session_;
  bool chunked_, head_only_;
};

template <class Stream>
void StreamSession<Stream>::on_request() {
  auto message = parser_->release();
  parser_.reset();
  keep_alive_ = message.keep_alive() && !host_.draining();
  bool head_only = message.method() == boost::beast::http::verb::head;
  if (head_only) message.method(boost::beast::http::verb::get);
  exchange_ = std::make_shared<Exchange>(self(), wire::request_of(message), message.version() >= 11, head_only);
  exchange_->add_header("X-Request-Id", exchange_->request().id);
  read_more();
  host_.handle(exchange_);
}

template <class Stream>
void StreamSession<Stream>::on_sent(error_code error) {
  if (closed_) return;
  if (error) return client_left();
  outgoing_.pop_front();
  if (!outgoing_.empty()) return write_next();
  if (finishing_) return after_exchange();
  if (auto exchange = exchange_) exchange->written();
}

template <class Stream>
void StreamSession<Stream>::client_left() {
  auto exchange = std::exchange(exchange_, nullptr);
  close();
  if (exchange) exchange->client_left();
}

}  // namespace tessera
