#include "comm/bell.h"

#include <linux/futex.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <ctime>

namespace tessera::comm {
namespace {

timespec to_timespec(double seconds) {
  double whole = std::floor(std::max(seconds, 0.0));
  return {static_cast<time_t>(whole), static_cast<long>((std::max(seconds, 0.0) - whole) * 1e9)};
}

void nudge_descriptor(int nudge) {
  // Eight bytes suit an eventfd; a socket takes any. A full one is as good as a nudge.
  uint64_t one = 1;
  if (::send(nudge, &one, sizeof one, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == ENOTSOCK) {
    [[maybe_unused]] ssize_t written = ::write(nudge, &one, sizeof one);
  }
}

}  // namespace

void ring_bell(BellWords& bell, int nudge) {
  // Both accesses are sequentially consistent: either we see the sleeper, or it sees the new count.
  bell.count.fetch_add(1, std::memory_order_seq_cst);
  uint32_t sleep = bell.sleep.load(std::memory_order_seq_cst);
  if (sleep == kAwake) return;
  if (sleep == kOnFutex) {
    ::syscall(SYS_futex, &bell.count, FUTEX_WAKE, 1, nullptr, nullptr, 0);
  } else if (nudge >= 0) {
    nudge_descriptor(nudge);
  }
}

void sleep_on_futex(BellWords& bell, uint32_t seen, double seconds) {
  timespec limit = to_timespec(seconds);
  bell.sleep.store(kOnFutex, std::memory_order_seq_cst);
  if (bell.count.load(std::memory_order_seq_cst) == seen) {
    ::syscall(SYS_futex, &bell.count, FUTEX_WAIT, seen, &limit, nullptr, 0);
  }
  bell.sleep.store(kAwake, std::memory_order_relaxed);
}

void sleep_in_poll(BellWords& bell, uint32_t seen, double seconds, std::vector<pollfd>& descriptors) {
  timespec limit = to_timespec(seconds);
  bell.sleep.store(kInPoll, std::memory_order_seq_cst);
  bool rang = bell.count.load(std::memory_order_seq_cst) != seen;
  if (rang) limit = {0, 0};
  if (::ppoll(descriptors.data(), descriptors.size(), &limit, nullptr) < 0) {
    for (pollfd& descriptor : descriptors) descriptor.revents = 0;
  }
  bell.sleep.store(kAwake, std::memory_order_relaxed);
}

}  // namespace tessera::comm
