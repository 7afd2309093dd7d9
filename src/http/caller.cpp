#include "http/caller.h"

#include "http/digest.h"

namespace tessera {

std::string_view api_key_of(const HttpRequest& request) {
  std::string_view bearer = request.header("Authorization");
  if (bearer.size() > 7 && equal_ignoring_case(bearer.substr(0, 7), "Bearer ")) return bearer.substr(7);
  return request.header("X-Api-Key");
}

std::string tenant_of_unchecked_key(std::string_view key) {
  constexpr size_t kDigits = 12;
  if (key.empty() || key == "none" || key == "EMPTY") return {};
  return "key-" + hex(sha256(key)).substr(0, kDigits);
}

}  // namespace tessera
