#include "http/gate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "http/caller.h"
#include "http/error_body.h"

namespace tessera {

namespace {

HttpResponse unauthorized(const HttpRequest& request) {
  bool none = api_key_of(request).empty();
  HttpError error{.status = 401,
                  .message = none ? "no API key: send it as 'Authorization: Bearer KEY'"
                                  : "the API key is not known to this server",
                  .code = none ? std::nullopt : std::optional<std::string>("invalid_api_key")};
  HttpResponse response = error_response(error, request);
  response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

HttpResponse too_many_requests(const HttpRequest& request, const Caller& caller, double wait_s) {
  HttpError error{.status = 429,
                  .message = fmt::format("'{}' may send {} requests a minute; try again in {} s", caller.tenant,
                                         caller.quota->limits().requests_per_minute, retry_after(wait_s)),
                  .type = "requests",
                  .code = "rate_limit_exceeded"};
  HttpResponse response = error_response(error, request);
  response.headers.emplace_back("Retry-After", retry_after(wait_s));
  return response;
}

HttpResponse forbidden(const HttpRequest& request, const Caller& caller) {
  HttpError error{.status = 403,
                  .message = needs_admin(caller, request.method + " " + request.path),
                  .type = "permission_error",
                  .code = "admin_required"};
  return error_response(error, request);
}

}  // namespace

bool open_to_all(const HttpRequest& request) {
  const std::string& path = request.path;
  return path == "/health" || path.starts_with("/health/") || path.starts_with("/v2/health/") ||
         path == "/live" || path == "/metrics";
}

bool admin_only(const HttpRequest& request) {
  bool changes_models = request.method == "POST" && request.path.starts_with("/v2/repository/models/");
  return changes_models || request.path.starts_with("/debug/");
}

std::string needs_admin(const Caller& caller, std::string_view what) {
  return fmt::format("'{}' may not {}: that takes a key with 'admin = true' in the file of --api-keys",
                     caller.tenant, what);
}

std::string retry_after(double seconds) {
  constexpr double kLongest = 60;
  return fmt::format("{}", static_cast<int64_t>(std::ceil(std::clamp(seconds, 1.0, kLongest))));
}

HttpServer::Handler guarded_by(ApiKeys keys, HttpServer::Handler handler) {
  return [keys = std::move(keys), handler = std::move(handler)](std::shared_ptr<HttpExchange> exchange) {
    const HttpRequest& request = exchange->request();
    if (open_to_all(request)) return handler(std::move(exchange));
    auto caller = keys.find(api_key_of(request));
    if (!caller) return exchange->respond(unauthorized(request));
    if (admin_only(request) && !caller->admin) return exchange->respond(forbidden(request, *caller));
    exchange->set_caller(caller);
    double wait_s = request.method == "POST" ? caller->quota->take_request() : 0;
    for (auto& [name, value] : caller->quota->headers()) exchange->add_header(name, value);
    if (wait_s > 0) return exchange->respond(too_many_requests(request, *caller, wait_s));
    handler(std::move(exchange));
  };
}

}  // namespace tessera
