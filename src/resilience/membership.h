// Who takes part, with which rank, and from which state: the launcher's decision after each loss of a worker,
// as a pure function of what is alive and what the survivors hold. The launcher never looks into the model:
// layouts of fewer ranks come as a table from the workers.
//
// Words. A worker is a process with an id that is never used again; a rank is its place in one generation.
// A snapshot (generation, step) is the state after `step` steps as the ranks of that generation held it; it is
// complete when for each of those ranks some live worker holds its part.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/result.h"

namespace tessera::resilience {

struct SnapshotId {
  int64_t step = 0, generation = 0;
  auto operator<=>(const SnapshotId&) const = default;
};

// One rank's part of a snapshot in the memory of a worker.
struct HeldPart {
  SnapshotId snapshot;
  int64_t ranks = 1, rank = 0;  // of the generation that took it
  bool own = true;              // false: kept for a neighbour
  bool operator==(const HeldPart&) const = default;
};

// What a worker says when a generation is called.
struct Report {
  int64_t worker = 0;
  int64_t steps_done = 0;  // completed by this process; 0 when it has just started
  std::vector<HeldPart> held;
  int64_t ranks = 1;                       // the job wants, at most
  std::map<int64_t, std::string> layouts;  // best layout of equal work for so many ranks
};

enum class StateSource { memory, disk };

// What a generation is. Every live worker takes part in moving state; those without a rank are spares.
struct Plan {
  int64_t generation = 0;
  std::string layout;
  std::vector<int64_t> members;  // worker of each rank
  std::vector<int64_t> live;     // members, then spares: their order is the group that moves state
  StateSource source = StateSource::disk;
  SnapshotId snapshot;  // when source is memory

  std::optional<int64_t> rank_of(int64_t worker) const;
};

// The newest snapshot of which every part is held.
std::optional<SnapshotId> newest_complete(const std::vector<Report>& reports);

// Places for the workers that reported: as many ranks as the layouts allow, survivors keep their rank of
// `previous` (so they find their own state in their own memory), newcomers fill the gaps.
// Errors: unavailable when no layout fits so few workers.
Result<Plan> form(int64_t generation, const std::vector<Report>& reports, const Plan* previous);

// Wire forms: JSON text in the store.
std::string encode(const Report& report);
std::string encode(const Plan& plan);
Result<Report> decode_report(const std::string& text);
Result<Plan> decode_plan(const std::string& text);

}  // namespace tessera::resilience
