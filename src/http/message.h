// A request of HTTP as its handlers see it, and the way they answer it.
//
// Threads: the server's only.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tessera {

struct Caller;

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method, path, query, body;  // path without the query; query without its '?'
  HttpHeaders headers = {};
  std::string id = {};                        // the client's X-Request-Id, else made; never empty
  std::shared_ptr<const Caller> caller = {};  // who sent it; null when nobody checked (http/gate.h)

  // Of the first header of this name, in whatever case; empty when there is none.
  std::string_view header(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string body, content_type = "application/json";
  HttpHeaders headers = {};
};

// One request and its answer: either respond() once, or begin_stream(), write()..., end_stream(). Calls after
// the client has left do nothing. Every answer carries the request's id as X-Request-Id.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
  const HttpRequest& request() const { return request_; }
  void set_caller(std::shared_ptr<const Caller> caller) { request_.caller = std::move(caller); }
  // Goes out with the answer, whichever it is.
  void add_header(std::string name, std::string value) {
    extra_headers_.emplace_back(std::move(name), std::move(value));
  }

  virtual void respond(const HttpResponse& response) = 0;
  virtual void begin_stream(const HttpResponse& head) = 0;  // without its body
  // Written one after the other. on_written follows when all of it is with the system: who waits for it never
  // piles up data for a slow client.
  virtual void write(const std::string& data) = 0;
  virtual void end_stream() = 0;

  std::function<void()> on_written;
  std::function<void()> on_disconnect;  // at most once; nothing follows

 protected:
  explicit HttpExchange(HttpRequest request) : request_(std::move(request)) {}
  const HttpHeaders& extra_headers() const { return extra_headers_; }

 private:
  HttpRequest request_;
  HttpHeaders extra_headers_;
};

// Names of headers and of schemes have no case.
bool equal_ignoring_case(std::string_view a, std::string_view b);

// The client's id when it can be put into a header and a log as it is, else a fresh one: at most 128 visible
// ASCII characters without quotes and backslashes.
std::string request_id_of(std::string_view from_client);

}  // namespace tessera
