#include "recsys_roles/hosts.h"

#include <fmt/ranges.h>

#include "resilience/protocol.h"

namespace tessera::recsys_roles {
namespace {

constexpr double kHostBeat_s = 0.3;

std::string key_of(int64_t host, const char* what) {
  return fmt::format("recsys-hosts/{}/{}", host, what);
}

}  // namespace

Result<Hosts> Hosts::join(std::shared_ptr<Store> store, double silence_s) {
  TESSERA_ASSIGN_OR_RETURN(int64_t number, store->add("recsys-hosts/count", 1));
  Hosts hosts(std::move(store), silence_s, number);
  hosts.beat();
  return hosts;
}

Status Hosts::say_roles(const std::vector<RoleName>& roles) {
  std::vector<std::string> names;
  for (const RoleName& role : roles) names.push_back(role.text());
  return store_->set(key_of(number_, "roles"), fmt::format("{}", fmt::join(names, ",")));
}

void Hosts::beat() {
  if (seconds_since(beaten_at_) < kHostBeat_s) return;
  beaten_at_ = Clock::now();
  (void)store_->add(key_of(number_, "beat"), 1);
}

void Hosts::leave() {
  if (!given_up()) (void)store_->set(key_of(number_, "end"), "left");
}

bool Hosts::has_ended(int64_t host) {
  return resilience::peek(*store_, key_of(host, "end")).has_value();
}

bool Hosts::given_up() {
  return resilience::peek(*store_, key_of(number_, "end")) == "given up";
}

std::vector<RoleName> Hosts::roles_of(int64_t host) {
  std::vector<RoleName> roles;
  const std::string text = resilience::peek(*store_, key_of(host, "roles")).value_or("");
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    if (auto role = parse_role(text.substr(begin, end - begin))) roles.push_back(*role);
    begin = end + 1;
  }
  return roles;
}

bool Hosts::is_silent(int64_t host, Sight& sight) {
  const std::string beat = resilience::peek(*store_, key_of(host, "beat")).value_or("");
  if (beat != sight.beat || sight.beat.empty()) {
    sight.beat = beat;
    sight.at = Clock::now();
  }
  return seconds_since(sight.at) >= silence_s_;
}

std::vector<Hosts::Host> Hosts::newly_lost() {
  std::vector<Host> lost;
  const auto count = std::atoll(resilience::peek(*store_, "recsys-hosts/count").value_or("0").c_str());
  for (int64_t host = 1; host <= count; ++host) {
    Sight& sight = seen_[host];
    if (host == number_ || sight.ended) continue;
    if ((sight.ended = has_ended(host)) || !is_silent(host, sight)) continue;
    sight.ended = true;
    (void)store_->set(key_of(host, "end"), "given up");
    lost.push_back({host, roles_of(host)});
  }
  return lost;
}

int64_t Hosts::host_of(const RoleName& role) {
  const auto count = std::atoll(resilience::peek(*store_, "recsys-hosts/count").value_or("0").c_str());
  for (int64_t host = 1; host <= count; ++host) {
    if (has_ended(host)) continue;
    const auto roles = roles_of(host);
    if (std::find(roles.begin(), roles.end(), role) != roles.end()) return host;
  }
  return 0;
}

}  // namespace tessera::recsys_roles
