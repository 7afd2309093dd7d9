// Whose requests a call makes, and what its headers ask for.
//
//   X-Request-Id          names the call in answers, logs and traces
//   Authorization         the API key: its tenant shares the server fairly with the others
//   X-Request-Timeout: S  the call has ended after S seconds, with an error if need be
// Threads: any.
#pragma once

#include <optional>

#include "http/message.h"
#include "serve/openai_request.h"

namespace tessera::serve {

// A tenant whose key was checked has a part of the prefix cache of its own; the body's `user` tells tenants
// apart only where there is no key. Errors: a header that cannot be read.
// 403 for a model that the key may not use; 429 when its tokens of the minute do not suffice for the longest
// answer.
std::optional<ApiError> attribute(const HttpRequest& request, const std::string& model, CompletionCall& call);

}  // namespace tessera::serve
