#include "serve/attribution.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "http/api_keys.h"
#include "http/caller.h"
#include "http/gate.h"

namespace tessera::serve {

namespace {

constexpr const char* kTimeout = "X-Request-Timeout";

// Seconds; 0 when the header is missing.
Result<double> timeout_of(const HttpRequest& request) {
  std::string_view text = request.header(kTimeout);
  if (text.empty()) return 0.0;
  double seconds = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  bool read = error == std::errc() && end == text.data() + text.size();
  if (read && std::isfinite(seconds) && seconds > 0) return seconds;
  return invalid("header {}: '{}' is no number of seconds above 0", kTimeout, text.substr(0, 40));
}

// Lengths first: no salt of one tenant spells the salt of another.
std::string salt_of(const std::string& tenant, const std::string& asked) {
  return fmt::format("{}:{}{}", tenant.size(), tenant, asked);
}

std::optional<ApiError> refuse_model(const Caller& caller, const std::string& model) {
  if (caller.may_use(model)) return std::nullopt;
  return ApiError{.status = 403,
                  .message = fmt::format("'{}' may not use the model '{}'", caller.tenant, model),
                  .type = "permission_error",
                  .param = "model",
                  .code = "model_not_allowed"};
}

// The longest that the call can become, for its key's tokens of the minute.
std::optional<ApiError> claim_tokens(const Caller& caller, CompletionCall& call) {
  int64_t tokens = 0;
  for (const CompletionRequest& request : call.requests) tokens += request.max_length();
  double wait_s = caller.quota->take_tokens(tokens);
  if (wait_s == 0) {
    call.claim = std::make_shared<TokenClaim>(caller.quota, tokens);
    return std::nullopt;
  }
  int64_t limit = caller.quota->limits().tokens_per_minute;
  std::string when = std::isfinite(wait_s) ? fmt::format("try again in {} s", retry_after(wait_s))
                                           : std::string("ask for fewer, as by max_tokens");
  return ApiError{.status = 429,
                  .message = fmt::format("'{}' may use {} tokens a minute, and this call needs up to {}; {}",
                                         caller.tenant, limit, tokens, when),
                  .type = "tokens",
                  .code = "rate_limit_exceeded",
                  .retry_after_s = wait_s};
}

}  // namespace

std::optional<ApiError> attribute(const HttpRequest& request, const std::string& model, CompletionCall& call) {
  auto timeout_s = timeout_of(request);
  if (!timeout_s) return to_api_error(timeout_s.error());
  std::string unchecked = tenant_of_unchecked_key(api_key_of(request));
  for (CompletionRequest& own : call.requests) {
    own.request_id = request.id;
    own.timeout_s = *timeout_s;
    if (request.caller) {
      own.tenant = request.caller->tenant;
      own.cache_salt = salt_of(own.tenant, own.cache_salt);
      own.priority = std::max(own.priority, request.caller->most_urgent_priority);
    } else if (!unchecked.empty()) {
      own.tenant = unchecked;
    }
  }
  if (!request.caller) return std::nullopt;
  if (auto error = refuse_model(*request.caller, model)) return error;
  return claim_tokens(*request.caller, call);
}

}  // namespace tessera::serve
