// What the one who moves rows (mover.h) says to the servers, and they to each other.
#pragma once

#include <string>

#include "recsys_roles/remote_servers.h"

namespace tessera::recsys_roles {

enum class MoveRequest : uint8_t {
  copy,
  read,
  fetch,
  take_seat,
  // with a step, or 0 where it means nothing
  latest,
  hold,
  stand_still,
  release,
  begin_at,
  clean
};

// Write what leaves for servers [first_target, end_target) of `to`.
struct CopyOrder {
  uint64_t move = 0;
  int64_t round = 0, to = 1, first_target = 0, end_target = 0;
};
struct ReadOrder {
  uint64_t move = 0, part = 0, offset = 0;
};
// Take part `part` of what `source` has written.
struct FetchOrder {
  uint64_t move = 0;
  int64_t round = 0, source = 0;
  uint64_t part = 0, bytes = 0;
};

// Below the keys of the server: who erases those takes this door away too.
inline std::string move_role(int64_t server) {
  return server_role(server) + "/move";
}

}  // namespace tessera::recsys_roles
