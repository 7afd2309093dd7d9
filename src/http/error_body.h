// The JSON of an error as the clients of each protocol read it. Threads: any.
#pragma once

#include <optional>
#include <string>

#include "http/message.h"

namespace tessera {

struct HttpError {
  int status = 400;
  std::string message, type = "invalid_request_error";
  std::optional<std::string> param = {}, code = {};
};

// {"error": {"message", "type", "param", "code"}, "request_id"}; no id when it is empty.
std::string openai_error_body(const HttpError& error, const std::string& request_id);
// {"error": message}, as KServe's clients expect.
std::string kserve_error_body(const std::string& message);
// 405, with the method that is.
HttpResponse wrong_method(const HttpRequest& request, const std::string& allowed);
// In the form that belongs to the request's path.
HttpResponse error_response(const HttpError& error, const HttpRequest& request);

}  // namespace tessera
