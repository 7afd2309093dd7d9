#include "http/wire.h"

#include <fmt/format.h>

#include <boost/beast/http/error.hpp>
#include <boost/beast/http/field.hpp>
#include <boost/beast/http/status.hpp>

namespace tessera::wire {

namespace http = boost::beast::http;

namespace {

std::string_view view(boost::beast::string_view text) {
  return {text.data(), text.size()};
}

void add_headers(std::string& head, const HttpHeaders& headers) {
  for (const auto& [name, value] : headers) {
    head += name;
    head += ": ";
    head += value;
    head += "\r\n";
  }
}

std::string head_of(const HttpResponse& response, const HttpHeaders& more, bool keep_alive) {
  auto reason = http::obsolete_reason(http::int_to_status(static_cast<unsigned>(response.status)));
  std::string head = fmt::format("HTTP/1.1 {} {}\r\nContent-Type: {}\r\n", response.status, view(reason),
                                 response.content_type);
  add_headers(head, response.headers);
  add_headers(head, more);
  return head + (keep_alive ? "Connection: keep-alive\r\n" : "Connection: close\r\n");
}

}  // namespace

HttpRequest request_of(Message& message) {
  std::string_view target = view(message.target());
  size_t question = target.find('?');
  HttpRequest request{.method = std::string(view(message.method_string())),
                      .path = std::string(target.substr(0, question)),
                      .body = std::move(message.body())};
  if (question != target.npos) request.query = target.substr(question + 1);
  for (const auto& field : message)
    request.headers.emplace_back(view(field.name_string()), view(field.value()));
  request.id = request_id_of(request.header("X-Request-Id"));
  return request;
}

bool wants_continue(const Message& message) {
  return boost::beast::iequals(message[http::field::expect], "100-continue");
}

std::optional<HttpResponse> refusal(const boost::system::error_code& error, uint64_t max_body_bytes) {
  bool http_error = error.category() == http::make_error_code(http::error::bad_method).category();
  if (!http_error || error == http::error::end_of_stream || error == http::error::partial_message)
    return std::nullopt;
  bool large = error == http::error::body_limit || error == http::error::header_limit;
  std::string text = large ? fmt::format("the request is larger than {} bytes", max_body_bytes)
                           : "the request is no valid HTTP: " + error.message();
  HttpResponse response{.status = large ? 413 : 400};
  response.body = fmt::format(
      R"({{"error":{{"message":"{}","type":"invalid_request_error","param":null,"code":null}}}})", text);
  return response;
}

std::string whole(const HttpResponse& response, const HttpHeaders& more, bool keep_alive) {
  return head_of_whole(response, more, keep_alive) + response.body;
}

std::string head_of_whole(const HttpResponse& response, const HttpHeaders& more, bool keep_alive) {
  return head_of(response, more, keep_alive) + fmt::format("Content-Length: {}\r\n\r\n", response.body.size());
}

std::string stream_head(const HttpResponse& head, const HttpHeaders& more, bool keep_alive, bool chunked) {
  std::string out = head_of(head, more, keep_alive);
  out += "Cache-Control: no-cache\r\n";
  return out + (chunked ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n");
}

std::string chunk(const std::string& data) {
  return fmt::format("{:x}\r\n{}\r\n", data.size(), data);
}

}  // namespace tessera::wire
