// Requests and answers of HTTP/1.1 as bytes. Internal to http. Threads: any.
#pragma once

#include <boost/beast/http/message.hpp>
#include <boost/beast/http/string_body.hpp>
#include <optional>

#include "http/message.h"

namespace tessera::wire {

using Message = boost::beast::http::request<boost::beast::http::string_body>;

HttpRequest request_of(Message& message);  // takes its body
bool wants_continue(const Message& message);

// The answer to bytes that are no request or too large a one; nothing for a connection that broke.
std::optional<HttpResponse> refusal(const boost::system::error_code& error, uint64_t max_body_bytes);

std::string whole(const HttpResponse& response, const HttpHeaders& more, bool keep_alive);
// The same without its body: the answer to HEAD.
std::string head_of_whole(const HttpResponse& response, const HttpHeaders& more, bool keep_alive);
std::string stream_head(const HttpResponse& head, const HttpHeaders& more, bool keep_alive, bool chunked);
std::string chunk(const std::string& data);

}  // namespace tessera::wire
