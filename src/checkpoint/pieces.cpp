#include "checkpoint/pieces.h"

#include "checkpoint/state_kind.h"

namespace tessera {

const char* to_string(StateKind kind) {
  switch (kind) {
    case StateKind::master:
      return "master";
    case StateKind::moment1:
      return "exp_avg";
    case StateKind::moment2:
      return "exp_avg_sq";
  }
  return "unknown";
}

Result<StateKind> checkpoint::parse_state_kind(std::string_view text) {
  for (StateKind kind : kStateKinds)
    if (text == to_string(kind)) return kind;
  return make_error(ErrorCode::data_loss, "unknown state '{}'; known: master, exp_avg, exp_avg_sq", text);
}

}  // namespace tessera
