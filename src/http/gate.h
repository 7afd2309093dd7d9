// Lets only requests with a known key through to the handler, and counts them against the key's quota.
// Everyone may ask for health and metrics: an orchestrator and a collector have no keys.
#pragma once

#include "http/api_keys.h"
#include "http/server.h"

namespace tessera {

// 401 without a key or with a wrong one; 403 for what is the operator's, with a key that is no admin's; 429
// with Retry-After when the key has had its requests of the minute.
HttpServer::Handler guarded_by(ApiKeys keys, HttpServer::Handler handler);

bool open_to_all(const HttpRequest& request);
// What changes the server for everyone or shows the requests of all tenants: models loaded and unloaded,
// /debug.
bool admin_only(const HttpRequest& request);
// Why a caller who is no admin is refused.
std::string needs_admin(const Caller& caller, std::string_view what);
// Whole seconds, at least 1; a wait without end becomes a minute.
std::string retry_after(double seconds);

}  // namespace tessera
