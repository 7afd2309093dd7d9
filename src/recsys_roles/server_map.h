// How many embedding servers a job has now. Rows belong to servers by that number alone (recsys/slot_map.h), so
// all that a move to another number has to settle is when the one number ends and the other begins:
//
//   recsys-move             "K G N M": the last move that was begun, number K, from N servers (map G) to M
//   recsys-move/K/claims    who speaks first decides
//   recsys-move/K/word      "done": map K with M servers is in force; "broken": map G with N still is
//
// A server that died while it stood still for a move may not come back before the word is there: its new
// process would let puts in that the move does not know of. So whoever replaces it breaks the move, unless that
// is done already.
//
// Threads: any.
#pragma once

#include <cstdint>

#include "comm/group.h"

namespace tessera::recsys_roles {

struct ServerMap {
  uint64_t number = 0;  // 0: that of the configuration; it counts up
  int64_t servers = 1;
};
// The map in force, of a job that began with `configured` servers.
Result<ServerMap> read_map(Store& store, int64_t configured);

struct Move {
  uint64_t number = 0;  // also that of its map
  ServerMap from;
  int64_t to = 1;
  int64_t most() const { return from.servers > to ? from.servers : to; }
};
// Begins the next move. By the owner of the store only, when none is under way.
Result<Move> announce_move(Store& store, int64_t configured, int64_t to);
// Says how the last move ends, unless that was said before. Returns whether it is done.
Result<bool> settle_move(Store& store, uint64_t number, bool done);
// Breaks the move under way, if there is one.
Status break_move(Store& store);

}  // namespace tessera::recsys_roles
