#include "comm/flight_recorder.h"

#include <algorithm>

namespace tessera::comm {

void FlightRecorder::begin(const Operation& operation) {
  std::lock_guard lock(mutex_);
  records_[count_++ % records_.size()] = {operation, Clock::now(), {}, false};
  running_ = true;
  waiting_for(-1);
}

void FlightRecorder::end(bool ok) {
  std::lock_guard lock(mutex_);
  Record& record = records_[(count_ - 1) % records_.size()];
  record.end = Clock::now();
  record.ok = ok;
  running_ = false;
}

std::string FlightRecorder::current() const {
  std::lock_guard lock(mutex_);
  if (!running_) return "";
  const Record& record = records_[(count_ - 1) % records_.size()];
  int64_t peer = peer_.load(std::memory_order_relaxed);
  std::string waiting = peer < 0 ? "" : fmt::format(", waiting for rank {}", peer);
  return fmt::format("{}{}, {:.1f} s", describe(record.operation), waiting, seconds_since(record.start));
}

std::string FlightRecorder::history(size_t longest) const {
  std::lock_guard lock(mutex_);
  size_t shown = std::min<size_t>({longest, count_, records_.size()});
  std::string text;
  for (uint64_t i = count_ - shown; i < count_; ++i) {
    const Record& record = records_[i % records_.size()];
    bool now = running_ && i + 1 == count_;
    double seconds = std::chrono::duration<double>((now ? Clock::now() : record.end) - record.start).count();
    const char* outcome = now ? " so far" : record.ok ? "" : ", failed";
    text += fmt::format("{}{} ({:.1f} ms{})", text.empty() ? "" : ", ", describe(record.operation),
                        seconds * 1e3, outcome);
  }
  return text;
}

}  // namespace tessera::comm
