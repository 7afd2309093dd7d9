// Bytes in order from one writer to one reader through memory that both map: a ring with a head and a tail that
// only grow. The same code serves threads of one process and processes of one host. Neither side ever waits
// here; who finds the ring full or empty sleeps on its bell.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "comm/group.h"

namespace tessera::comm {

enum SideState : uint32_t { kOpen = 0, kFinished = 1, kFailed = 2 };

// Lies in shared memory. A side that failed leaves its reason before it sets its state. A side that finds
// nothing to do asks to be woken, so that the other makes no system call for a peer that does not wait for it.
struct RingHeader {
  static constexpr size_t kReasonBytes = 512;
  alignas(64) std::atomic<uint64_t> tail{0};  // bytes written so far
  alignas(64) std::atomic<uint64_t> head{0};  // bytes read so far
  alignas(64) std::atomic<uint32_t> writer{kOpen};
  std::atomic<uint32_t> reader{kOpen};
  std::atomic<uint32_t> writer_asks{0};  // to be woken when there is room
  std::atomic<uint32_t> reader_asks{0};  // to be woken when there are bytes
  char writer_reason[kReasonBytes] = {};
};

class Ring {
 public:
  Ring(RingHeader* header, std::byte* data, uint64_t capacity)
      : header_(header), data_(data), capacity_(capacity) {}

  RingHeader& header() const { return *header_; }
  // Copies what fits of `first` and then of `second`; returns the number of bytes.
  size_t write(Bytes first, Bytes second);
  size_t read(MutableBytes into);
  // Whether the other side asked to be woken and has reason to wake; takes its request back.
  bool take_reader_request();
  bool take_writer_request();

 private:
  uint64_t room(std::memory_order order) const;
  void copy_in(uint64_t position, Bytes bytes);

  RingHeader* header_;
  std::byte* data_;
  uint64_t capacity_;
};

}  // namespace tessera::comm
