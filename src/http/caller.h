// Who sent a request. Tenants share the server fairly and never find each other's prompts in the KV cache.
// Threads: any.
#pragma once

#include <string>
#include <string_view>

#include "http/message.h"

namespace tessera {

// Of `Authorization: Bearer KEY` or `X-Api-Key: KEY`; empty when there is none.
std::string_view api_key_of(const HttpRequest& request);

// A tenant's name for a key that nobody checks: requests with equal keys belong together. Short, and the key
// cannot be read from it. Empty for no key and for the words that clients of open servers put there ("none",
// "EMPTY").
std::string tenant_of_unchecked_key(std::string_view key);

}  // namespace tessera
