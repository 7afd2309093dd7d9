// A rank that waits for bytes or for room asks its rings to be woken and sleeps on its bell; the peer that
// reads or writes such a ring rings. The words lie in memory shared by threads or processes, so that one futex
// serves both. A rank that also has sockets to watch sleeps in poll() instead and is woken through a descriptor
// ("nudge").
#pragma once

#include <poll.h>

#include <atomic>
#include <cstdint>
#include <vector>

namespace tessera::comm {

enum Sleep : uint32_t { kAwake = 0, kOnFutex = 1, kInPoll = 2 };

struct BellWords {
  std::atomic<uint32_t> count{0};  // the futex word: rings so far
  std::atomic<uint32_t> sleep{kAwake};
};
static_assert(std::atomic<uint32_t>::is_always_lock_free, "words are shared between processes");

// Counts one ring and wakes the sleeper. `nudge` is an eventfd or a socket whose other end the sleeper polls;
// -1 where nobody ever sleeps in poll.
void ring_bell(BellWords& bell, int nudge);

// Returns when the bell rang since `seen` was read from its count, or after `seconds`; may return early.
void sleep_on_futex(BellWords& bell, uint32_t seen, double seconds);
void sleep_in_poll(BellWords& bell, uint32_t seen, double seconds, std::vector<pollfd>& descriptors);

}  // namespace tessera::comm
