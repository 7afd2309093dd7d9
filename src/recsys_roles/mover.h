// Another number of embedding servers while training goes on. Three steps, of which only the last holds
// training up, and at any moment either the old map of servers (server_map.h) is in force or the new one:
//
//   copy       each server that gives rows away writes them, and then again and again what changed since; those
//              that get them take the files. Nobody is asked to wait
//   hold       a step a little ahead is agreed on. Puts of that step and later wait, those of earlier steps go
//              on, until all servers hold the same puts and stand still
//   hand over  the last changes are taken, the new map is put in force by one word in the job's store, and
//   every
//              server takes its seat in it. Requests that waited are refused with the new map's number, and
//              their senders, who keep what they sent, make them again to the servers that own the ids now
//
// A put is so either on all servers of the old map, and moves with its rows, or on none. If one of the servers
// dies before the word is there, the old map stays, the copies are thrown away, and the move is tried again;
// after it, the new process of a server finds the new map.
#pragma once

#include <functional>
#include <memory>

#include "recsys_roles/link.h"
#include "recsys_roles/server_map.h"
#include "recsys_train/served_store.h"

namespace tessera::recsys_roles {

// A server's end: a door of its own. The store must outlive it.
class MoveEnd {
 public:
  static Result<std::unique_ptr<MoveEnd>> open(const Meeting& meeting, int64_t number,
                                               recsys_train::ServedStore& store);
  virtual ~MoveEnd() = default;
};

enum class MovePhase : uint8_t { copy, hold, hand_over };
const char* to_string(MovePhase phase);

struct MoverOptions {
  Meeting meeting;
  int64_t configured = 1;  // servers that the job began with
  int64_t to = 1;
  int tries = 3;
  std::function<void(MovePhase phase, const std::string& detail)> on_progress;
  std::function<bool()> stopped;  // the job ends
};
struct MoveResult {
  Move move;
  int64_t rows = 0, bytes = 0;  // of the copies; rows that changed meanwhile count again
  int64_t step = 0;             // of the hand-over
  double hand_over_s = 0, total_s = 0;
};
// Returns when every server has its seat and holds its own rows only. All servers of both maps must run, or be
// on their way. Errors: the old map stays in force, and nothing of a move is left.
Result<MoveResult> move_rows(const MoverOptions& options);

}  // namespace tessera::recsys_roles
