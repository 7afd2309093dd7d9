// The last operations of a group with their times, for errors and for a watchdog. Threads: any.
#pragma once

#include <array>
#include <atomic>
#include <mutex>
#include <string>

#include "comm/message.h"

namespace tessera::comm {

class FlightRecorder {
 public:
  void begin(const Operation& operation);
  void end(bool ok);
  // Group rank that the running operation waits for; -1 for none.
  void waiting_for(int64_t peer) { peer_.store(peer, std::memory_order_relaxed); }

  std::string current() const;  // "all_gather #812 of 4096 bytes, waiting for rank 3, 2.1 s" or ""
  std::string history(
      size_t longest) const;  // "barrier #811 (0.2 ms), all_gather #812 of 4096 bytes (failed ...)"

 private:
  struct Record {
    Operation operation;
    Clock::time_point start, end;
    bool ok = false;
  };
  mutable std::mutex mutex_;
  std::array<Record, 64> records_;  // the newest at (count_ - 1) % 64
  uint64_t count_ = 0;
  bool running_ = false;
  std::atomic<int64_t> peer_{-1};
};

}  // namespace tessera::comm
