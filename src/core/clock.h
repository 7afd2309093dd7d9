// Monotonic time and deadlines. Every wait in Tessera takes a Deadline.
#pragma once

#include <chrono>

namespace tessera {

using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Seconds since 1970, for what people and other programs read; never for measuring.
inline double unix_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// A point in time after which a wait gives up.
struct Deadline {
  Clock::time_point at;

  static Deadline after(double seconds) {
    return {Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds))};
  }
  bool passed() const { return Clock::now() >= at; }
  double seconds_left() const { return std::chrono::duration<double>(at - Clock::now()).count(); }
};

}  // namespace tessera
