#include "http/message.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <random>

namespace tessera {

namespace {

constexpr size_t kMaxIdBytes = 128;

bool is_plain(char c) {
  return c > ' ' && c <= '~' && c != '"' && c != '\\';
}

}  // namespace

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  auto lower = [](char c) { return std::tolower(static_cast<unsigned char>(c)); };
  return std::ranges::equal(a, b, {}, lower, lower);
}

std::string_view HttpRequest::header(std::string_view name) const {
  auto found = std::ranges::find_if(headers, [&](const auto& h) { return equal_ignoring_case(h.first, name); });
  return found == headers.end() ? std::string_view() : std::string_view(found->second);
}

std::string request_id_of(std::string_view from_client) {
  if (!from_client.empty() && from_client.size() <= kMaxIdBytes && std::ranges::all_of(from_client, is_plain))
    return std::string(from_client);
  thread_local std::random_device device;
  return fmt::format("{:08x}{:08x}{:08x}{:08x}", device(), device(), device(), device());
}

}  // namespace tessera
