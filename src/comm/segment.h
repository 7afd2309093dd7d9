// The memory of one rank that its peers on the same host map too: its bell, and one ring per peer for bytes
// that come in.
//
//   page 0            SegmentHeader
//   then per peer     one page of RingHeader, ring_bytes of data (rounded up to pages)
//
// Pages that are never touched cost nothing, so the rank's own slot is there for simple arithmetic.
#pragma once

#include <memory>

#include "comm/bell.h"
#include "comm/ring.h"

namespace tessera::comm {

struct SegmentHeader {
  static constexpr uint64_t kMagic = 0x3130747367657354;  // "Tsegst01"
  uint64_t magic = kMagic;
  uint64_t ranks = 0, ring_bytes = 0;
  BellWords bell;
};

class Segment {
 public:
  static Result<std::shared_ptr<Segment>> make_private(int64_t ranks, int64_t ring_bytes);  // for threads
  // In a sealed memfd, whose descriptor() may be passed to peers.
  static Result<std::shared_ptr<Segment>> make_shared(int64_t ranks, int64_t ring_bytes);
  // Maps a peer's memfd after checking its size, seals and header; takes the descriptor.
  static Result<std::shared_ptr<Segment>> map(int descriptor, int64_t ranks, int64_t ring_bytes);
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;
  ~Segment();

  BellWords& bell() const;
  Ring ring_from(int64_t peer) const;
  int descriptor() const { return descriptor_; }  // -1 for private memory
  void close_descriptor();                        // the mapping stays

 private:
  Segment(std::byte* base, size_t bytes, uint64_t ring_bytes, int descriptor)
      : base_(base), bytes_(bytes), ring_bytes_(ring_bytes), descriptor_(descriptor) {}
  static Result<std::shared_ptr<Segment>> map_new(int descriptor, int64_t ranks, int64_t ring_bytes);

  std::byte* base_;
  size_t bytes_;
  uint64_t ring_bytes_;
  int descriptor_;
};

}  // namespace tessera::comm
