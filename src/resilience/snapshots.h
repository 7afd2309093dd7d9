// Snapshots of the training state in memory: each rank keeps its own part and that of its neighbour, so that
// the loss of one rank (of one host, when neighbours lie on different hosts) leaves every part in some
// survivor's memory.
//
// take() copies this rank's pieces and starts the exchange with the neighbour, which runs while the next step
// computes; commit() at the end of that step waits for the rest. Because a training step synchronises all
// ranks, at every moment at least one snapshot is complete on all of them: the two newest are kept, and none is
// dropped before a newer one is committed here. At most `every` steps are lost.
//
// Memory: three buffers of a rank's state for itself and three for its neighbour.
// Threads: one; the group's own thread moves the bytes.
#pragma once

#include <cstddef>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/pieces.h"
#include "comm/group.h"
#include "resilience/membership.h"

namespace tessera::resilience {

class Snapshots {
 public:
  struct Part {
    HeldPart what;
    std::vector<std::byte> bytes;  // of serialise_pieces()
  };

  // Joins a generation: rank r keeps the part of rank r - shift. The group must outlive leave().
  void join(int64_t generation, Group* group, int64_t shift = 1);
  // Ends an exchange under way, whose group has failed or is about to go, and keeps what is complete.
  void leave();

  // REQUIRES: no exchange under way. Collective. Pieces with primary = false are left out.
  Status take(int64_t step, std::span<const Piece> pieces);
  // Waits for the exchange under way, if there is one.
  Status commit();

  std::vector<HeldPart> held() const;
  // This worker's parts of one snapshot.
  std::vector<const Part*> parts_of(const SnapshotId& snapshot) const;
  void clear();

  double seconds() const { return seconds_; }  // that take() and commit() made the caller wait
  int64_t bytes() const;                       // of complete snapshots

 private:
  struct Entry {
    SnapshotId id;
    Part own, neighbour;
  };
  Status agree_sizes(int64_t mine);
  Status start_exchange();
  std::vector<std::byte> buffer(size_t bytes);
  void recycle(Entry entry);

  int64_t generation_ = 0, shift_ = 1;
  Group* group_ = nullptr;
  std::vector<int64_t> sizes_;  // of each rank's part, in this generation
  std::deque<Entry> complete_;  // oldest first
  std::unique_ptr<Entry> under_way_;
  Pending pending_;
  std::vector<std::vector<std::byte>> free_;
  double seconds_ = 0;
};

}  // namespace tessera::resilience
