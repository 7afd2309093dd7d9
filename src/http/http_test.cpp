// The server over a real socket, without models: ids, bounds, pipelined requests, slow and leaving clients.
#include "http/http.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <future>
#include <thread>

namespace tessera {
namespace {

class Client {
 public:
  explicit Client(uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
    timeval limit{.tv_sec = 5};
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  }
  ~Client() { leave(); }
  bool connected() const { return connected_; }
  void leave() {
    if (socket_ >= 0) ::close(std::exchange(socket_, -1));
  }
  void send(const std::string& text) {
    ASSERT_EQ(::send(socket_, text.data(), text.size(), 0), std::ssize(text));
  }
  // Until `end` was read, or the server closed.
  std::string read_to(const std::string& end) {
    std::string text;
    char byte;
    while (!text.ends_with(end) && ::recv(socket_, &byte, 1, 0) == 1) text += byte;
    return text;
  }
  std::string read_all() { return read_to(std::string(1, '\0')); }
  std::string get(const std::string& path, const std::string& headers = "") {
    send("GET " + path + " HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n");
    return read_to("$");
  }

 private:
  int socket_;
  bool connected_ = false;
};

// A server on its own thread; drained at the end.
class Running {
 public:
  explicit Running(HttpServer::Handler handler, HttpServerOptions options = {})
      : server_(HttpServer::listen(options).value()),
        thread_([this, handler] { finished_ = server_->run(handler); }) {}
  ~Running() { stop(); }
  bool stop() {
    if (!thread_.joinable()) return finished_;
    server_->post([this] { server_->drain(); });
    thread_.join();
    return finished_;
  }
  uint16_t port() const { return server_->port(); }
  HttpServer& server() { return *server_; }

 private:
  std::unique_ptr<HttpServer> server_;
  bool finished_ = false;
  std::thread thread_;
};

// Answers end with '$', so that a client knows when it has all.
void tell_request(const std::shared_ptr<HttpExchange>& exchange) {
  const HttpRequest& request = exchange->request();
  exchange->respond({.body = request.path + "|" + request.query + "|" +
                             std::string(request.header("x-COLOUR")) + "|" + request.id + "$"});
}

TEST(Http, HandlersSeePathQueryHeadersAndTheClientsId) {
  Running server(tell_request);
  std::string answer = Client(server.port()).get("/a/b?c=d", "X-Colour: blue\r\nx-request-id: mine-7\r\n");
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 OK\r\n")) << answer;
  EXPECT_NE(answer.find("\r\nX-Request-Id: mine-7\r\n"), answer.npos) << answer;
  EXPECT_TRUE(answer.ends_with("\r\n\r\n/a/b|c=d|blue|mine-7$")) << answer;
}

TEST(Http, IdsThatWouldBreakAHeaderOrALogAreReplaced) {
  EXPECT_EQ(request_id_of("abc-123"), "abc-123");
  for (std::string bad : {"", "two words", "quote\"", "back\\slash", "tab\t", "\xc3\xa9"}) {
    std::string id = request_id_of(bad);
    EXPECT_NE(id, bad);
    EXPECT_EQ(id.size(), 32u);
  }
  EXPECT_EQ(request_id_of(std::string(129, 'a')).size(), 32u);
  EXPECT_NE(request_id_of(""), request_id_of(""));
}

TEST(Http, RequestsOfOneConnectionAreAnsweredInTheirOrder) {
  Running server(tell_request);
  Client client(server.port());
  std::string one = "GET /1 HTTP/1.1\r\nHost: x\r\n\r\n", two = "GET /2 HTTP/1.1\r\nHost: x\r\n\r\n";
  client.send(one + two + one);
  for (std::string path : {"/1", "/2", "/1"})
    EXPECT_NE(client.read_to("$").find("\r\n" + path + "|"), std::string::npos);
  EXPECT_NE(client.get("/later").find("/later|"), std::string::npos);
}

TEST(Http, ABodyThatComesInPiecesIsAskedForAndWhole) {
  Running server([](std::shared_ptr<HttpExchange> exchange) {
    exchange->respond({.body = fmt::format("{}$", exchange->request().body.size())});
  });
  Client client(server.port());
  client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.read_to("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  for (int i = 0; i < 3; ++i) client.send(std::string(100'000, 'x'));
  EXPECT_TRUE(client.read_to("$").ends_with("\r\n\r\n300000$"));
  client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
  client.send("2\r\nde\r\n0\r\n\r\n");
  EXPECT_TRUE(client.read_to("$").ends_with("\r\n\r\n5$"));
}

TEST(Http, AClientThatSendsNoMoreStillGetsItsRefusal) {
  Running server(tell_request, {.max_body_bytes = 100});
  Client client(server.port());
  client.send("POST / HTTP/1.1\r\nContent-Length: 5000\r\n\r\n" + std::string(5000, 'x'));
  EXPECT_TRUE(client.read_all().starts_with("HTTP/1.1 413 "));
  Client other(server.port());
  other.send("no http\r\n\r\n");
  EXPECT_TRUE(other.read_all().starts_with("HTTP/1.1 400 "));
}

TEST(Http, AClientThatLeavesIsNoticedAtOnce) {
  std::promise<void> begun, left;
  Running server([&](std::shared_ptr<HttpExchange> exchange) {
    exchange->on_disconnect = [&left, exchange] { left.set_value(); };
    exchange->begin_stream({.content_type = "text/event-stream"});
    begun.set_value();
  });
  Client client(server.port());
  client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  begun.get_future().wait();
  client.leave();
  EXPECT_EQ(left.get_future().wait_for(std::chrono::seconds(2)), std::future_status::ready);
}

TEST(Http, AReaderThatTakesNothingIsCutOffAndDelaysNobody) {
  std::promise<void> left;
  Running server(
      [&](std::shared_ptr<HttpExchange> exchange) {
        if (exchange->request().path != "/flood") return tell_request(exchange);
        exchange->on_disconnect = [&left] { left.set_value(); };
        exchange->begin_stream({});
        exchange->write(std::string(32 << 20, 'x'));
      },
      {.write_timeout_s = 2});
  Client slow(server.port());
  slow.send("GET /flood HTTP/1.1\r\nHost: x\r\n\r\n");
  auto cut_off = left.get_future();
  for (int i = 0; i < 5; ++i) EXPECT_NE(Client(server.port()).get("/quick").find("/quick|"), std::string::npos);
  EXPECT_EQ(cut_off.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  EXPECT_EQ(cut_off.wait_for(std::chrono::seconds(10)), std::future_status::ready);
}

TEST(Http, AConnectionThatSaysNothingIsClosed) {
  Running server(tell_request, {.read_timeout_s = 0.3});
  Client silent(server.port()), used(server.port());
  used.get("/");
  auto start = Clock::now();
  EXPECT_EQ(silent.read_all(), "");
  EXPECT_EQ(used.read_all(), "");
  EXPECT_LT(seconds_since(start), 2);
}

TEST(Http, DrainingEndsWhatRunsAndTakesNothingNew) {
  std::shared_ptr<HttpExchange> held;
  std::promise<void> begun;
  Running server([&](std::shared_ptr<HttpExchange> exchange) {
    held = exchange;
    begun.set_value();
  });
  Client client(server.port()), idle(server.port());
  client.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
  begun.get_future().wait();
  server.server().post([&] {
    server.server().drain();
    server.server().post([&] { tell_request(std::exchange(held, nullptr)); });
  });
  EXPECT_NE(client.read_to("$").find("/slow|"), std::string::npos);
  EXPECT_EQ(idle.read_all(), "");
  EXPECT_TRUE(server.stop());
}

TEST(Http, WhoConnectedBeforeItCouldKnowOfADrainIsStillServed) {
  Running server(tell_request);
  Client early(server.port()), open(server.port());
  open.send("GET /first HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_NE(open.read_to("$").find("/first|"), std::string::npos);
  std::promise<void> drains;
  server.server().post([&] {
    server.server().drain();
    drains.set_value();
  });
  drains.get_future().wait();
  Client late(server.port());
  for (auto* client : {&early, &open, &late}) {
    client->send("GET /last HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_NE(client->read_to("$").find("/last|"), std::string::npos);
    EXPECT_EQ(client->read_all(), "");  // and then the connection is closed
  }
  EXPECT_TRUE(server.stop());
}

TEST(Http, APortInUseIsOneClearError) {
  Running server(tell_request);
  auto second = HttpServer::listen({.port = server.port()});
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find("another --port"), std::string::npos) << second.error().message;
}

TEST(Caller, KeysComeFromEitherHeader) {
  EXPECT_EQ(api_key_of({.headers = {{"authorization", "bearer sk-1"}}}), "sk-1");
  EXPECT_EQ(api_key_of({.headers = {{"X-API-Key", "sk-2"}}}), "sk-2");
  EXPECT_EQ(api_key_of({.headers = {{"Authorization", "Basic abc"}}}), "");
  EXPECT_EQ(tenant_of_unchecked_key("sk-1"), tenant_of_unchecked_key("sk-1"));
  EXPECT_NE(tenant_of_unchecked_key("sk-1"), tenant_of_unchecked_key("sk-2"));
  EXPECT_EQ(tenant_of_unchecked_key("EMPTY"), "");
}

TEST(Digest, EqualsTheStandardsExample) {
  auto digest = sha256("abc");
  EXPECT_EQ(hex(digest), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_TRUE(equal_in_constant_time(*parse_sha256(hex(digest)), digest));
  EXPECT_FALSE(parse_sha256("ba78"));
  EXPECT_FALSE(parse_sha256(std::string(64, 'g')));
}

}  // namespace
}  // namespace tessera
