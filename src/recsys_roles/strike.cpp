#include "recsys_roles/strike.h"

#include <signal.h>

#include <charconv>

namespace tessera::recsys_roles {

Result<Strike> parse_strike(const std::string& text) {
  Error malformed = invalid(
      "a fault is ROLE:kill@STEP, ROLE:stop@STEP or ROLE:slow@STEP, such as server:1:kill@40, or in place of "
      "STEP copy, hold or hand-over, the phases of another number of servers; got '{}'",
      text);
  const size_t at = text.rfind('@'), colon = text.rfind(':');
  if (at == std::string::npos || colon == std::string::npos || colon > at) return malformed;
  Strike strike;
  strike.host = text.starts_with("host:");
  if (!strike.host) {
    TESSERA_ASSIGN_OR_RETURN(strike.role, parse_role(text.substr(0, colon)));
  }
  const std::string what = text.substr(colon + 1, at - colon - 1);
  if (what != "kill" && ((what != "stop" && what != "slow") || strike.host)) return malformed;
  strike.signal = what == "kill" ? SIGKILL : SIGSTOP;
  strike.slow = what == "slow";
  for (MovePhase phase : {MovePhase::copy, MovePhase::hold, MovePhase::hand_over})
    if (text.substr(at + 1) == to_string(phase)) return strike.phase = phase, strike;
  const char *first = text.data() + at + 1, *last = text.data() + text.size();
  auto [end, failure] = std::from_chars(first, last, strike.step);
  if (first == last || failure != std::errc() || end != last || strike.step < 0) return malformed;
  return strike;
}

}  // namespace tessera::recsys_roles
