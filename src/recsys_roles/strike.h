// Faults that drills plant in a job of roles.
#pragma once

#include <optional>
#include <string>

#include "recsys_roles/mover.h"
#include "recsys_roles/role.h"

namespace tessera::recsys_roles {

// A signal to a role once so many steps are done.
struct Strike {
  RoleName role;
  int signal = 0;
  int64_t step = 0;
  bool host = false;  // instead of a role: this host goes, with all its processes and memory, and tells nobody
  bool slow = false;  // instead of the signal: from then on it runs for a quarter of the time
  std::optional<MovePhase> phase;  // instead of a step: in that phase of a change of the number of servers
};
// "server:1:kill@40", "worker:0:stop@7", "host:kill@9", "server:0:kill@hand-over"
Result<Strike> parse_strike(const std::string& text);

}  // namespace tessera::recsys_roles
