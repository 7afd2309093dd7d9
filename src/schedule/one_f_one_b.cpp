#include <algorithm>

#include "schedule/tables.h"

namespace tessera::tables {
namespace {

// Forward or backward k of a stage: groups of `stages` slots pass chunk after chunk.
Action turn(Action::Kind kind, int64_t k, int64_t stages, int64_t chunks) {
  int64_t group = k / (stages * chunks), inside = k % (stages * chunks), chunk = inside / stages;
  return {.kind = kind,
          .slot = group * stages + inside % stages,
          .chunk = kind == Action::forward ? chunk : chunks - 1 - chunk};
}

}  // namespace

Row gpipe(int64_t slots) {
  Row row;
  for (Action::Kind kind : {Action::forward, Action::backward})
    for (int64_t slot = 0; slot < slots; ++slot) row.push_back({.kind = kind, .slot = slot});
  return row;
}

// Warm-up forwards, then one forward and one backward in turn, then the rest.
Row one_f_one_b(int64_t stage, int64_t stages, int64_t chunks, int64_t slots) {
  int64_t total = slots * chunks, behind = stages - 1 - stage;
  int64_t warm_up = std::min(chunks == 1 ? behind : 2 * behind + (chunks - 1) * stages, total);
  Row row;
  // One chunk takes slots as they come, also where stages do not divide them.
  int64_t round = chunks == 1 ? total : stages;
  for (int64_t k = 0; k < warm_up; ++k) row.push_back(turn(Action::forward, k, round, chunks));
  for (int64_t k = 0; k < total; ++k) {
    if (warm_up + k < total) row.push_back(turn(Action::forward, warm_up + k, round, chunks));
    row.push_back(turn(Action::backward, k, round, chunks));
  }
  return row;
}

}  // namespace tessera::tables
