// Bytes in order, both ways, between this rank and one peer. Calls move what can be moved now and never wait;
// the exchanger above waits for all channels of a rank at once.
#pragma once

#include <poll.h>

#include <string>

#include "comm/group.h"

namespace tessera::comm {

class Channel {
 public:
  virtual ~Channel() = default;
  // Bytes of `first` and then of `second` that were taken; 0 when there is no room now. Fails when the peer
  // will not read again.
  virtual Result<size_t> write_some(Bytes first, Bytes second) = 0;
  // 0 when nothing is there now. What a peer sent before it left can still be read; then it fails.
  virtual Result<size_t> read_some(MutableBytes into) = 0;
  // Fails when the peer gave up or died, whether or not we want bytes from it; `thorough` may cost a system
  // call. A peer that left in order is no failure.
  virtual Status check(bool thorough) = 0;
  // What to poll for, with fd = -1 for nothing; and what came of it.
  virtual pollfd interest(bool reading, bool writing) = 0;
  virtual void polled(short events) = 0;
  // Tells the peer that this side is done. Any thread, at most once with failed = true.
  virtual void leave(bool failed, const std::string& reason) = 0;
};

}  // namespace tessera::comm
