#include "http/error_body.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace tessera {

using nlohmann::json;

namespace {

std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

json or_null(const std::optional<std::string>& text) {
  return text ? json(*text) : json(nullptr);
}

}  // namespace

std::string openai_error_body(const HttpError& error, const std::string& request_id) {
  json inner = {{"message", error.message},
                {"type", error.type},
                {"param", or_null(error.param)},
                {"code", or_null(error.code)}};
  json out = {{"error", inner}};
  if (!request_id.empty()) out["request_id"] = request_id;
  return dump(out);
}

std::string kserve_error_body(const std::string& message) {
  return dump({{"error", message}});
}

HttpResponse error_response(const HttpError& error, const HttpRequest& request) {
  bool kserve = request.path == "/v2" || request.path.starts_with("/v2/");
  return {.status = error.status,
          .body = kserve ? kserve_error_body(error.message) : openai_error_body(error, request.id)};
}

HttpResponse wrong_method(const HttpRequest& request, const std::string& allowed) {
  std::string text = fmt::format("{} does not take {}; use {}", request.path, request.method, allowed);
  HttpResponse response = error_response({.status = 405, .message = text}, request);
  response.headers.emplace_back("Allow", allowed);
  return response;
}

}  // namespace tessera
